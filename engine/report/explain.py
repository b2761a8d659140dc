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


def explain(told: RunHistory, key: str) -> list[str]:
    """The image's story, a line a fact, generation after generation. Raises ValueError when the run's pool has no such key."""
    lines = []
    for pointer, predictions in told.of("predict"):
        pool = told.manifests.get(pointer.record["inputs"]["images"])
        addresses = pool.find(key) if pool is not None else []
        if pool is None:
            raise ValueError(f"{pointer.title}: the listing of its pool is no longer in {told.store.uri}")
        for address in addresses:
            lines += [f"{pointer.title}: shard {address[0]} row {address[1]}, by {_teacher(told, predictions)}"]
            lines += [
                f"  {line}" for line in _prediction(told, predictions, address, "only" in pointer.record["inputs"])
            ]
            lines += [f"  {line}" for line in _labels(told, predictions, address)]
    if not lines:
        raise ValueError(
            f"{key!r}: no image of this run's pool has this key; a key is the path below the collection, the value of the key column,"
            " or file.parquet:row where there is none"
        )
    return lines


def lineage(told: RunHistory, output: Output, depth: int = 0) -> list[str]:
    """The steps from which a step was made, indented, down to the listed collections."""
    pointer = next(pointer for pointer, one in told.steps if one.step == output.step)
    lines = [f"{'  ' * depth}{pointer.step}  ({pointer.title})"]
    for name, digest in sorted(pointer.record["inputs"].items()):
        if (maker := told.maker(digest)) is not None:
            lines += lineage(told, maker[1], depth + 1)
        elif digest in told.manifests:
            lines.append(
                f"{'  ' * (depth + 1)}{name}: {told.manifests[digest].num_rows} images at {told.manifests[digest].uri}"
            )
    return lines


def _labels(told: RunHistory, predictions: Output, address: Address) -> Iterator[str]:
    """Which label each selection made from these predictions gave the image, and the targets that were made of that label."""
    for label, pseudo in told.readers("select", "predictions", predictions.digest):
        relabelled = told.readers("reassign", "fresh", pseudo.digest)
        if (
            not relabelled
        ):  # what reassign reads selects everything: not the selection's choice, its labels stand in reassign's output
            yield f"{label.title}: {_verdict(told, predictions, label, pseudo, address)}"
        for one, output in relabelled:
            yield f"{one.title}: {_reassigned(told, predictions, one, output, address)}"
        for one, output in told.readers("mix", "answers", pseudo.digest):
            yield f"{one.title}: {_mixed(told, predictions, one, output, address)}"


def _reassigned(told: RunHistory, predictions: Output, pointer: Pointer, output: Output, address: Address) -> str:
    """The label that a later teacher gave an image which an earlier selection had chosen."""
    chooser = told.maker(pointer.record["inputs"]["filtered"])
    named = chooser[0].title if chooser is not None else "a selection of another run"
    names = teacher_classes(told.store, predictions).names
    if rows := _rows(told, output, address):
        told_rows = "; ".join(
            f"{names[row['class']]}, rank {row['rank'] + 1}, score {_shown(row['score'])}, drawn {row['count']}x an epoch"
            for row in rows
        )
        return f"relabelled as {told_rows}; chosen by {named}"
    if chooser is not None and not _rows(told, chooser[1], address):
        return f"no label: {named} did not choose it"
    return f"no label: chosen by {named}, but this teacher has no prediction for it"


def _mixed(told: RunHistory, predictions: Output, pointer: Pointer, output: Output, address: Address) -> str:
    """The target of an image after its true label was mixed into the teacher's prediction."""
    rows = _rows(told, output, address)
    if not rows:
        return "no target"
    names = teacher_classes(told.store, predictions).names
    pairs = sorted(zip(rows[0]["weights"], rows[0]["classes"], strict=True), reverse=True)
    target = ", ".join(f"{names[index]} {weight:.4f}" for weight, index in pairs)
    return f"target {target} (share of the true label {pointer.record['settings']['truth_share']:g})"


def _rows(told: RunHistory, output: Output, address: Address) -> list[dict[str, Any]]:
    """The image's rows in a table of pseudo-labels, one for each class that it was chosen for."""
    columns = ["shard", "row", "class", "score", "rank", "count", "classes", "weights"]
    return [
        row
        for _, table in read_tables(output, told.store.fs, columns)
        for row in table.filter(
            pc.and_(pc.equal(table["shard"], address[0]), pc.equal(table["row"], address[1]))
        ).to_pylist()
    ]


def _teacher(told: RunHistory, predictions: Output) -> str:
    step = predictions.summary["model"]
    label = next((pointer.title for pointer, output in told.steps if output.step == step), "a model of another run")
    return f"{step} ({label})"


def _prediction(told: RunHistory, predictions: Output, address: Address, only: bool) -> list[str]:
    """What the teacher said of the image, or why it was set aside."""
    seen = _seen(told, predictions, address)
    if seen is None:
        quarantined = _quarantined(told, predictions, address)
        return [
            quarantined
            or ("not predicted: only some images were" if only else "no prediction and no entry in the quarantine")
        ]
    names = teacher_classes(told.store, predictions).names
    pairs = zip(classes_of(seen)[0], scores_of(seen)[0], strict=True)
    return ["predicted " + ", ".join(f"{names[c]} {_shown(float(score))}" for c, score in pairs)]


def _shown(score: float) -> str:
    """A score as probability and, because rounding hides the top, as log-odds."""
    return f"{float(probability(score)):.4f} (log-odds {score:.4g})"


def _seen(told: RunHistory, predictions: Output, address: Address) -> pa.Table | None:
    """The image's row of the predictions."""
    for part in predictions.parts(told.store.fs):
        if part.unit == address[0]:
            table = read_part(predictions, told.store.fs, part)
            found = table.filter(pc.equal(table["row"], address[1]))
            return found.combine_chunks() if found.num_rows else None
    return None


def _quarantined(told: RunHistory, predictions: Output, address: Address) -> str | None:
    """Why the image was set aside."""
    path = f"{predictions.folder}/quarantine/{address[0]:08d}.parquet"
    if not storage.exists(told.store.fs, path):
        return None
    table = pq.read_table(io.BytesIO(storage.get(told.store.fs, path)))
    reasons = table.filter(pc.equal(table["row"], address[1]))["reason"].to_pylist()
    return f"not labelled: {reasons[0]}" if reasons else None


def _verdict(told: RunHistory, predictions: Output, pointer: Pointer, pseudo: Output, address: Address) -> str:
    """Whether a selection took the image, and which cut decided."""
    classes = pseudo.summary["report"]["classes"]
    if rows := _rows(told, pseudo, address):
        chosen = "; ".join(
            f"{classes[row['class']]['name']}, rank {row['rank'] + 1}{_out_of(row['rank'], classes[row['class']]['kept'])},"
            f" score {_shown(row['score'])}, drawn {row['count']}x an epoch"
            for row in rows
        )
        first = _first_choice(told, pointer, address)
        return f"chosen as {chosen}" if first is None else f"label kept since {first}: {chosen}"
    if (reason := reason_of(told.store, pseudo, *address)) is not None:
        return f"left out: {reason}"
    seen = _seen(told, predictions, address)
    return "not chosen: it has no prediction" if seen is None else _refusal(pointer.record["settings"], pseudo, seen)


def _first_choice(told: RunHistory, pointer: Pointer, address: Address) -> str | None:
    """In the sticky mode, the selection that gave the image the label which later ones keep; None where this one chose it."""
    first = None
    while (keep := pointer.record["inputs"].get("keep")) is not None:
        earlier = told.maker(keep)
        if earlier is None:
            return "a selection of another run"
        if not _rows(told, earlier[1], address):
            break
        pointer = earlier[0]
        first = pointer.title
    return first


def _out_of(rank: int, kept: int) -> str:
    """Of how many; nothing in the sticky mode, where earlier labels stand beside those that this selection kept."""
    return f" of {kept}" if rank < kept else ""


def _refusal(settings: dict[str, Any], pseudo: Output, seen: pa.Table) -> str:
    """Which cut an image that was not chosen failed, for its best class."""
    index = int(classes_of(seen)[0, 0])
    told = pseudo.summary["report"]["classes"][index]
    set_by_hand = settings.get("thresholds", {}).get(told["name"], settings["threshold"])
    adaptive = SelectSettings.model_validate(settings).needs_histogram
    cut = (
        told["cut"] if adaptive or settings.get("score") == "energy" else set_by_hand
    )  # the same cut; the float16 that stands for it reads oddly
    kind = settings.get("score", "max_probability")
    what = "probability" if kind == "max_probability" else kind
    stored = best_score(seen, kind)[0]
    score = float(stored) if kind == "energy" else float(probability(stored))
    if score <= cut:
        return f"not chosen: {what} {score:.4f} for {told['name']} is not above the cut {cut:.4f}"
    if told["lowest"] is not None and told["kept"] < told["available"] and score <= told["lowest"]:
        tied = " (a tie, decided by the hash of the address)" if score == told["lowest"] else ""
        return (
            f"not chosen: {what} {score:.4f} for {told['name']} is above the cut {cut:.4f}, but the {told['kept']} kept of"
            f" {told['available']} are better, down to {told['lowest']:.4f}{tied}"
        )
    return (
        f"not chosen: {what} {score:.4f} for {told['name']} is above the cut {cut:.4f}, but the draw of"
        f" cut={settings.get('cut')}, balance={settings.get('balance')} left it out"
    )
