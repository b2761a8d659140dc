"""Why an image has the label it has: read from the records of a run alone, on any machine, without a cluster.

A pseudo-label is a row of a select step; the step names the predictions it chose from, these the model that made them, the model the training
shards it was fitted on: from digest to digest, down to the labelled images.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.ground import storage
from engine.ground.run import Pointer, pointers
from engine.ground.steps import Output, Store, read_output, read_part, read_tables
from engine.images.manifest import Manifest
from engine.models.fetch import teacher_classes
from engine.select.exclusion import reason_of
from engine.select.scores import best_score, classes_of, probability, scores_of
from engine.settings.select import SelectSettings

Address = tuple[int, int]


@dataclass(frozen=True)
class RunHistory:
    """What a run left: its finished steps in order, and whose output each digest is."""

    store: Store
    steps: list[tuple[Pointer, Output]]
    manifests: dict[str, Manifest]
    """The listed collections of the store by digest."""

    def of(self, verb: str) -> Iterator[tuple[Pointer, Output]]:
        """The finished steps of a verb."""
        return ((pointer, output) for pointer, output in self.steps if pointer.record["verb"] == verb)

    def readers(self, verb: str, name: str, digest: str) -> list[tuple[Pointer, Output]]:
        """The finished steps of a verb whose input called `name` is the output with this digest."""
        return [one for one in self.of(verb) if one[0].record["inputs"].get(name) == digest]

    def maker(self, digest: str) -> tuple[Pointer, Output] | None:
        """The step whose output has this digest."""
        return next((one for one in self.steps if one[1].digest == digest), None)


def read_history(store: Store, run: str) -> RunHistory:
    """Read a run's records. Raises FileNotFoundError naming the runs that exist."""
    found = [(pointer, read_output(store, pointer.step)) for pointer in pointers(store, run)]
    manifests = {}
    for name in storage.names(store.fs, f"{store.root}/listings"):
        folder = json.loads(storage.get(store.fs, f"{store.root}/listings/{name}"))["folder"]
        if storage.exists(store.fs, f"{folder}/manifest.json"):
            manifest = Manifest.load(store.fs, folder)
            manifests[manifest.digest] = manifest
    return RunHistory(store, [(pointer, output) for pointer, output in found if output is not None], manifests)


def explain(history: RunHistory, key: str) -> list[str]:
    """The image's story, a line a fact, generation after generation. Raises ValueError when the run's pool has no such key."""
    lines = []
    for pointer, predictions in history.of("predict"):
        pool = history.manifests.get(pointer.record["inputs"]["images"])
        addresses = pool.find(key) if pool is not None else []
        if pool is None:
            raise ValueError(f"{pointer.title}: the listing of its pool is no longer in {history.store.uri}")
        for address in addresses:
            lines += [f"{pointer.title}: shard {address[0]} row {address[1]}, by {_teacher(history, predictions)}"]
            lines += [
                f"  {line}" for line in _prediction(history, predictions, address, "only" in pointer.record["inputs"])
            ]
            lines += [f"  {line}" for line in _labels(history, predictions, address)]
    if not lines:
        raise ValueError(
            f"{key!r}: no image of this run's pool has this key; a key is the path below the collection, the value of the key column,"
            " or file.parquet:row where there is none"
        )
    return lines


def lineage(history: RunHistory, output: Output, depth: int = 0) -> list[str]:
    """The steps from which a step was made, indented, down to the listed collections."""
    pointer = next(pointer for pointer, one in history.steps if one.step == output.step)
    lines = [f"{'  ' * depth}{pointer.step}  ({pointer.title})"]
    for name, digest in sorted(pointer.record["inputs"].items()):
        if (maker := history.maker(digest)) is not None:
            lines += lineage(history, maker[1], depth + 1)
        elif digest in history.manifests:
            lines.append(
                f"{'  ' * (depth + 1)}{name}: {history.manifests[digest].num_rows} images at {history.manifests[digest].uri}"
            )
    return lines


def _labels(history: RunHistory, predictions: Output, address: Address) -> Iterator[str]:
    """Which label each selection made from these predictions gave the image, and the targets that were made of that label."""
    for label, pseudo in history.readers("select", "predictions", predictions.digest):
        relabelled = history.readers("reassign", "fresh", pseudo.digest)
        if (
            not relabelled
        ):  # what reassign reads selects everything: not the selection's choice, its labels stand in reassign's output
            yield f"{label.title}: {_verdict(history, predictions, label, pseudo, address)}"
        for one, output in relabelled:
            yield f"{one.title}: {_reassigned(history, predictions, one, output, address)}"
        for one, output in history.readers("mix", "answers", pseudo.digest):
            yield f"{one.title}: {_mixed(history, predictions, one, output, address)}"


def _reassigned(history: RunHistory, predictions: Output, pointer: Pointer, output: Output, address: Address) -> str:
    """The label that a later teacher gave an image which an earlier selection had chosen."""
    chooser = history.maker(pointer.record["inputs"]["filtered"])
    named = chooser[0].title if chooser is not None else "a selection of another run"
    names = teacher_classes(history.store, predictions).names
    if rows := _rows(history, output, address):
        told_rows = "; ".join(
            f"{names[row['class']]}, rank {row['rank'] + 1}, score {_shown(row['score'])}, drawn {row['count']}x an epoch"
            for row in rows
        )
        return f"relabelled as {told_rows}; chosen by {named}"
    if chooser is not None and not _rows(history, chooser[1], address):
        return f"no label: {named} did not choose it"
    return f"no label: chosen by {named}, but this teacher has no prediction for it"


def _mixed(history: RunHistory, predictions: Output, pointer: Pointer, output: Output, address: Address) -> str:
    """The target of an image after its true label was mixed into the teacher's prediction."""
    rows = _rows(history, output, address)
    if not rows:
        return "no target"
    names = teacher_classes(history.store, predictions).names
    pairs = sorted(zip(rows[0]["weights"], rows[0]["classes"], strict=True), reverse=True)
    target = ", ".join(f"{names[index]} {weight:.4f}" for weight, index in pairs)
    return f"target {target} (share of the true label {pointer.record['settings']['truth_share']:g})"


def _rows(history: RunHistory, output: Output, address: Address) -> list[dict[str, Any]]:
    """The image's rows in a table of pseudo-labels, one for each class that it was chosen for."""
    columns = ["shard", "row", "class", "score", "rank", "count", "classes", "weights"]
    return [
        row
        for _, table in read_tables(output, history.store.fs, columns)
        for row in table.filter(
            pc.and_(pc.equal(table["shard"], address[0]), pc.equal(table["row"], address[1]))
        ).to_pylist()
    ]


def _teacher(history: RunHistory, predictions: Output) -> str:
    step = predictions.summary["model"]
    label = next((pointer.title for pointer, output in history.steps if output.step == step), "a model of another run")
    return f"{step} ({label})"


def _prediction(history: RunHistory, predictions: Output, address: Address, only: bool) -> list[str]:
    """The teacher's prediction of the image, or why it was skipped."""
    seen = _seen(history, predictions, address)
    if seen is None:
        quarantined = _quarantined(history, predictions, address)
        return [
            quarantined
            or ("not predicted: only some images were" if only else "no prediction and no entry in the quarantine")
        ]
    names = teacher_classes(history.store, predictions).names
    pairs = zip(classes_of(seen)[0], scores_of(seen)[0], strict=True)
    return ["predicted " + ", ".join(f"{names[c]} {_shown(float(score))}" for c, score in pairs)]


def _shown(score: float) -> str:
    """A score as probability and, because rounding hides the top, as log-odds."""
    return f"{float(probability(score)):.4f} (log-odds {score:.4g})"


def _seen(history: RunHistory, predictions: Output, address: Address) -> pa.Table | None:
    """The image's row of the predictions."""
    for part in predictions.parts(history.store.fs):
        if part.unit == address[0]:
            table = read_part(predictions, history.store.fs, part)
            found = table.filter(pc.equal(table["row"], address[1]))
            return found.combine_chunks() if found.num_rows else None
    return None


def _quarantined(history: RunHistory, predictions: Output, address: Address) -> str | None:
    """The reason why the image was skipped."""
    path = f"{predictions.folder}/quarantine/{address[0]:08d}.parquet"
    if not storage.exists(history.store.fs, path):
        return None
    table = pq.read_table(io.BytesIO(storage.get(history.store.fs, path)))
    reasons = table.filter(pc.equal(table["row"], address[1]))["reason"].to_pylist()
    return f"not labelled: {reasons[0]}" if reasons else None


def _verdict(history: RunHistory, predictions: Output, pointer: Pointer, pseudo: Output, address: Address) -> str:
    """Whether a selection took the image, and which cut decided."""
    classes = pseudo.summary["report"]["classes"]
    if rows := _rows(history, pseudo, address):
        chosen = "; ".join(
            f"{classes[row['class']]['name']}, rank {row['rank'] + 1}{_out_of(row['rank'], classes[row['class']]['kept'])},"
            f" score {_shown(row['score'])}, drawn {row['count']}x an epoch"
            for row in rows
        )
        first = _first_choice(history, pointer, address)
        return f"chosen as {chosen}" if first is None else f"label kept since {first}: {chosen}"
    if (reason := reason_of(history.store, pseudo, *address)) is not None:
        return f"left out: {reason}"
    seen = _seen(history, predictions, address)
    settings = SelectSettings.model_validate(pointer.record["settings"])
    return "not chosen: it has no prediction" if seen is None else _refusal(settings, pseudo, seen)


def _first_choice(history: RunHistory, pointer: Pointer, address: Address) -> str | None:
    """In the sticky mode, the selection that gave the image the label which later ones keep; None where this one chose it."""
    first = None
    while (keep := pointer.record["inputs"].get("keep")) is not None:
        earlier = history.maker(keep)
        if earlier is None:
            return "a selection of another run"
        if not _rows(history, earlier[1], address):
            break
        pointer = earlier[0]
        first = pointer.title
    return first


def _out_of(rank: int, kept: int) -> str:
    """Of how many; nothing in the sticky mode, where earlier labels stand beside those that this selection kept."""
    return f" of {kept}" if rank < kept else ""


def _refusal(settings: SelectSettings, pseudo: Output, seen: pa.Table) -> str:
    """Which cut an image that was not chosen failed, for its best class."""
    index = int(classes_of(seen)[0, 0])
    of_class = pseudo.summary["report"]["classes"][index]
    set_by_hand = settings.thresholds.get(of_class["name"], settings.threshold)
    # where the cut was set, its own number is shown: the float16 that stands for it reads oddly
    cut = of_class["cut"] if settings.needs_histogram or settings.score == "energy" else set_by_hand
    kind = settings.score
    what = "probability" if kind == "max_probability" else kind
    stored = best_score(seen, kind)[0]
    score = float(stored) if kind == "energy" else float(probability(stored))
    if score <= cut:
        return f"not chosen: {what} {score:.4f} for {of_class['name']} is not above the cut {cut:.4f}"
    if of_class["lowest"] is not None and of_class["kept"] < of_class["available"] and score <= of_class["lowest"]:
        tied = " (a tie, decided by the hash of the address)" if score == of_class["lowest"] else ""
        return (
            f"not chosen: {what} {score:.4f} for {of_class['name']} is above the cut {cut:.4f}, but the {of_class['kept']} kept of"
            f" {of_class['available']} are better, down to {of_class['lowest']:.4f}{tied}"
        )
    return (
        f"not chosen: {what} {score:.4f} for {of_class['name']} is above the cut {cut:.4f}, but the draw of"
        f" cut={settings.cut}, balance={settings.balance} left it out"
    )
