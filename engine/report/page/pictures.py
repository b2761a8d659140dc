"""The pictures of the page: accepted, just below the cut, with a changed label; and the images that no step could use, by reason."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow.parquet as pq

from engine.ground import storage
from engine.ground.budget import count_reasons, is_excluded
from engine.ground.encodings import composed
from engine.ground.steps import Output
from engine.report.page.attempt import Attempt, attempt
from engine.report.page.candidates import Candidate, accepted, just_below, limits_of
from engine.report.page.label_checks import Changed
from engine.report.page.masks import MaskPicture, legend, read_masks
from engine.report.page.pseudo_labels import SelectionPart
from engine.report.page.source import RunRecord
from engine.report.page.thumbnails import Address, Picture, PictureBudget, read_pictures
from engine.select.scores import probability

CLASSES = 60
PER_CLASS = 3
BELOW = 24
EXAMPLES = 5
MOST_FILES = 16
"""Files of a quarantine that are read for examples; the counts are those of the whole step."""


@dataclass(frozen=True)
class Shown:
    """A picture with what was predicted of it. `was`: its label before, where it changed."""

    picture: Picture
    class_name: str
    confidence: float
    was: str | None = None
    mask: MaskPicture | None = None
    """What was predicted of its pixels, of a run that learns pixels."""

    @property
    def is_right(self) -> bool | None:
        """Whether the collection's own label agrees; None without one."""
        return None if self.picture.label is None else composed(self.picture.label) == self.class_name


@dataclass(frozen=True)
class ClassPictures:
    """The best and the worst accepted images of a class."""

    name: str
    best: tuple[Shown, ...]
    worst: tuple[Shown, ...]


@dataclass(frozen=True)
class Gallery:
    """Pictures of one selection. `num_classes`: of how many classes those are that are shown."""

    title: str
    classes: tuple[ClassPictures, ...]
    num_classes: int
    is_choice: bool
    """Whether only the classes that the model to use knows worst are shown."""
    below: Attempt[tuple[Shown, ...]]
    changed: tuple[Shown, ...]
    notes: tuple[str, ...]
    masks: Attempt[tuple[tuple[str, str], ...]]
    """Of a run that learns pixels the classes with their colours in masks."""


@dataclass(frozen=True)
class Unused:
    """Images of one step that were rejected or excluded for one reason, and the first of them: key and what the decoder said."""

    title: str
    reason: str
    count: int
    is_excluded: bool
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Pictures:
    """All of the section."""

    gallery: Attempt[Gallery | None]
    unused: Attempt[tuple[Unused, ...]]


def pictures(record: RunRecord, selections: Sequence[SelectionPart], budget: PictureBudget) -> Pictures:
    """The section of a run: the gallery is that of its last selection."""
    return Pictures(attempt(_gallery, record, selections, budget), attempt(unused_images, record))


def _gallery(record: RunRecord, selections: Sequence[SelectionPart], budget: PictureBudget) -> Gallery | None:
    found = record.selections()
    if not found:
        return None
    pointer, output = found[-1]
    part = next((one for one in selections if one.step == output.step), None)
    classes = output.summary["report"]["classes"]
    names = [one["name"] for one in classes]
    ranked = pointer.record["settings"].get("score", "max_probability")
    predictions = record.predictions_of(output)
    best, note = accepted(output, record.store, _chosen_classes(record, names), PER_CLASS)
    below = attempt(just_below, predictions, record.store, limits_of(classes, ranked), ranked, BELOW)
    changed = part.churn.value.examples if part is not None and part.churn.value is not None else ()
    candidates = [one for group in best for one in (*group.best, *group.worst)]
    near = below.value[0] if below.value is not None else ()
    wanted = [one.address for one in (*candidates, *near)] + [(one.shard, one.row) for one in changed]
    found_pictures = _with_labels(record, names, read_pictures(record.collection_of(predictions), wanted, budget))
    masks: Attempt[dict[Address, MaskPicture]] = Attempt({})
    if is_segmenting := record.settings.get("task") == "segment":
        masks = attempt(read_masks, predictions, record.store, wanted, budget)
    predicted = masks.value or {}

    def shown(one: Candidate) -> Shown:
        mask = predicted.get(one.address)
        return Shown(found_pictures[one.address], names[one.class_index], float(probability(one.score)), mask=mask)

    return Gallery(
        pointer.title,
        tuple(
            ClassPictures(names[one.class_index], tuple(map(shown, one.best)), tuple(map(shown, one.worst)))
            for one in best
        ),
        len(names),
        len(names) > CLASSES,
        Attempt(tuple(shown(one) for one in near), below.problem),
        tuple(_changed(one, found_pictures[one.shard, one.row]) for one in changed),
        tuple(filter(None, (note, below.value[1] if below.value is not None else ""))),
        Attempt(legend(names) if is_segmenting else (), masks.problem),
    )


def _with_labels(record: RunRecord, names: Sequence[str], found: dict[Address, Picture]) -> dict[Address, Picture]:
    """The pictures with only those labels that are classes of the run: of a pool they may say something else, and of other tasks several."""
    is_known = record.settings.get("task", "classify") == "classify"
    classes = set(names) if is_known else set()
    return {
        address: one if one.label is None or composed(one.label) in classes else replace(one, label=None)
        for address, one in found.items()
    }


def _changed(one: Changed, picture: Picture) -> Shown:
    return Shown(picture, one.after, float(probability(one.score)), one.before)


def _chosen_classes(record: RunRecord, names: Sequence[str]) -> list[int]:
    """The classes that are shown: all of few, else those that the model to use knows worst."""
    if len(names) <= CLASSES or record.chosen is None:
        return list(range(len(names)))[:CLASSES]
    score = record.chosen.scores.get(record.main_set)
    known = score.per_class if score is not None else {}
    order = sorted(range(len(names)), key=lambda index: (known.get(names[index], 1.0), index))
    return order[:CLASSES]


def unused_images(record: RunRecord) -> tuple[Unused, ...]:
    """What the steps rejected or excluded, by step and reason, the most frequent first; a few keys of each."""
    found: list[Unused] = []
    for step in record.steps:
        reasons = step.output.summary.get("reasons") if step.output is not None else None
        if step.output is None or not reasons:
            continue
        examples = _examples(record, step.output)
        found += [
            Unused(step.title, reason, count, is_excluded(reason), tuple(examples.get(reason, ())))
            for reason, count in Counter(reasons).most_common()
        ]
    return tuple(found)


def _examples(record: RunRecord, output: Output) -> dict[str, list[tuple[str, str]]]:
    """The first keys of each reason, from a few files of a quarantine."""
    fs, folder = record.store.fs, f"{output.folder}/quarantine"
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name in storage.names(fs, folder)[:MOST_FILES]:
        rows = pq.read_table(f"{folder}/{name}", filesystem=fs, columns=["key", "reason"], use_threads=False)
        for key, text in zip(rows["key"].to_pylist(), rows["reason"].to_pylist(), strict=True):
            reason = next(iter(count_reasons([text])))
            if len(found[reason]) < EXAMPLES:
                found[reason].append((key, text))
    return found
