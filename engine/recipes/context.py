"""What every recipe stands on: the run, its collections and classes, and the verbs with the run's settings filled in."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from engine.dedup.hashing import hash_images
from engine.evaluate.calibrate import calibrate
from engine.evaluate.evaluate import evaluate, score_of
from engine.fit.check import check_students
from engine.fit.pool_stream import PoolSource
from engine.fit.source import GatheredSource, Source
from engine.fit.trainer import FitSpec, fit
from engine.gather.arrange import Arranged, arrange
from engine.gather.outputs import output_targets, raw_outputs
from engine.gather.picks import COLUMNS
from engine.gather.pipeline import gather, gather_labelled, training_set
from engine.ground.fanout import FanOut
from engine.ground.progress import log_event
from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Output, Step, read_output, read_tables, verb_of
from engine.images.collection import Collection, open_collection, open_masks
from engine.images.masks import Masks
from engine.images.overlap import ExclusionSet, build_exclusion_set, check_overlaps, contradictions
from engine.images.scope import Scope
from engine.images.subset import Subset
from engine.labels.classes import ClassList
from engine.labels.mixture import mix_table
from engine.labels.soft_tables import TargetKind
from engine.metrics.score import Score
from engine.probe.predicting import predict
from engine.recipes.policy import Verdict
from engine.select.exclusion import ReferenceSets
from engine.select.pipeline import SelectSpec, addresses_in, select
from engine.select.reassign import put_reassigned
from engine.settings.data import DataSettings
from engine.settings.fit import FitSettings
from engine.settings.model import ModelSettings
from engine.settings.predict import PredictSettings
from engine.settings.run import RunSettings
from engine.settings.select import SelectSettings
from engine.tables import schema
from engine.tasks.registry import find_task
from engine.tasks.task import Task, known_classes

MIX_REVISION = REASSIGN_REVISION = TARGETS_REVISION = 1


CONTROL = "labels only"
"""Name of the control: the final model's network, learned from the labels alone."""


@dataclass(frozen=True)
class Evaluated:
    """The score of a model on one labelled set, and the step with its rows."""

    score: Score
    step: str


@dataclass
class Generation:
    """One trained model of a run and where it came from. Generation 0 is the teacher that only saw labels."""

    name: str
    network: ModelSettings
    model: Output
    steps: list[Output]
    validation: Evaluated | None = None
    test: Evaluated | None = None
    pseudo: dict[str, Any] = field(default_factory=dict)
    guard: Verdict | None = None
    """What was decided when it stood beside its teacher."""


class RecipeContext:
    """Collections, classes and verbs of one run of the main job."""

    def __init__(self, run: Run, settings: RunSettings) -> None:
        self.run, self.settings = run, settings
        self.control: Generation | None = None
        kind = find_task(settings.task)
        kind.check(settings)
        data = settings.data
        wanted = {name: getattr(data, name) for name in ("labelled", "exact", "validation", "test", "pool")}
        self.collections: dict[str, Collection] = {
            name: open_set(run, name, uri, data) for name, uri in wanted.items() if uri is not None
        }
        self.task: Task = kind.of(self.collections["labelled"], data.classes)
        self.classes = self.task.classes
        settings.check_selections(self.classes.names)
        check_students(settings, len(self.classes))
        self.count_unknown()
        self.known = {name: c for name, c in self.collections.items() if name != "pool"}
        for name in self.known:
            self.task.truth(self.collections[name])  # a wrong label is reported before anything is trained
        self.fingerprints = {name: hash_images(run, collection) for name, collection in self.known.items()}
        for trained in ("labelled", "exact"):  # an image with a weak label may have an exact one, too
            sets = {name: found for name, found in self.fingerprints.items() if name in (trained, "validation", "test")}
            check_overlaps(sets)
        for name, collection in self.known.items():
            if said := contradictions(self.fingerprints[name], collection.labels_by_key):
                log_event(name, said)

    @cached_property
    def exclusions(self) -> ExclusionSet:
        """Hashes of every labelled and evaluation image: such images are left out of the pool while it is labelled."""
        return build_exclusion_set(self.fingerprints)

    @cached_property
    def labelled(self) -> GatheredSource:
        """The true labels as a training set."""
        return self.true_labels("labelled")

    @cached_property
    def pool(self) -> PoolSource:
        """The pool without the excluded images, for objectives that train on raw images."""
        if "pool" not in self.collections:
            raise ValueError("a stream called pool draws from the pool: set data.pool")
        return PoolSource(self.collections["pool"].manifest, self.exclusions, self.settings.data.max_rejected_percent)

    @cached_property
    def pretext(self) -> Output | None:
        """What `settings.fits.pretext` makes of raw images; None without it. The run's labels have no part in it."""
        settings, wanted = self.settings, self.settings.fits.pretext
        if wanted is None:
            return None
        streams: dict[str, Source] = {
            name: getattr(self, name) for name in wanted.batch if name in ("labelled", "pool")
        }
        spec = FitSpec(settings.models.teacher, settings.seeded(wanted), self.classes)
        return fit(self.run, "pretext fit", spec, streams)

    def targets(
        self, label: str, tables: Iterable[pa.Table], inputs: dict[str, str], kind: TargetKind | None = None
    ) -> Output:
        """Targets of a `kind` (default: the task's), a part for each table, as a step that `gather` reads. `inputs`: digests of their origin."""
        kind = kind or self.task.target_kind

        def work(step: Step) -> Output:
            started = time.time()
            form = schema.targets(len(self.classes), self.classes.hash)
            parts = [step.put_part(unit, table.select(form.names).cast(form)) for unit, table in enumerate(tables)]
            summary = {"kind": kind, "rows": sum(part.rows for part in parts)}
            return step.commit(parts, summary, started)

        inputs = {**inputs, "classes": self.task.digest}
        record = StepRecord("targets", TARGETS_REVISION, {"kind": kind}, inputs)
        return self.run.find_or_run_step(label, record, work)

    def true_labels(self, on: str) -> GatheredSource:
        """The labels of the collection called `on` as a training set."""
        collection = self.collections[on]
        made = self.task.true_targets(self.task.truth(collection))
        if made is not None:
            targets = self.targets(f"{on} targets", [made], {"images": collection.digest})
            return self.gather(f"gather {on}", targets, on)
        output = gather_labelled(self.run, f"gather {on}", self.scope(on), self.classes)
        return GatheredSource(output, training_set(output, self.run.store, self.classes))

    def labelled_of(self, label: str, only: Subset) -> GatheredSource:
        """The true labels of some labelled images as a training set."""
        output = gather_labelled(self.run, label, replace(self.scope("labelled"), chosen=only), self.classes)
        return GatheredSource(output, training_set(output, self.run.store, self.classes))

    def fit(
        self,
        label: str,
        model: ModelSettings,
        settings: FitSettings,
        init: Output | None = None,
        classes: ClassList | None = None,
        pretext: bool = True,
        **streams: Source,
    ) -> Output:
        """A model of the run's classes, or of those given, trained on the streams that `settings.batch` asks for.

        It starts from `init`, else from the pretext when it is of the teacher's architecture and `pretext` is not false, else at random.
        """
        used = {name: stream for name, stream in streams.items() if name in settings.batch}
        if init is None and pretext and model.architecture == self.settings.models.teacher.architecture:
            init = self.pretext
        spec = FitSpec(model, self.settings.seeded(settings), classes or self.classes, init)
        return fit(self.run, label, spec, used)

    def predict(self, label: str, model: Output, on: str = "pool", only: Subset | None = None) -> Output:
        """Answers of `model` on the collection called `on`, or on `only` some of its images; the pool's without the excluded images."""
        settings = self.task.predict_settings(self._calibrated(label, model))
        return predict(self.run, label, model, replace(self.scope(on), chosen=only), settings, self.task.answers)

    def _calibrated(self, label: str, model: Output) -> PredictSettings:
        """How `model` predicts: at the temperature fitted for it, where that is asked for; one for its pseudo-labels, its guard and its table."""
        settings = self.settings.predict
        if not settings.calibrate:
            return settings
        fitted = calibrate(self.run, f"{label} calibrate", model, self.scope("validation"), self.classes, settings)
        return settings.model_copy(update={"temperature": fitted.summary["temperature"]})

    def scope(self, on: str) -> Scope:
        """The images of the collection called `on`; the pool's without those that stand in a labelled or evaluation set."""
        exclusions = self.exclusions if on == "pool" else None
        percent = self.settings.data.max_rejected_percent
        return Scope(self.collections[on], exclusions, max_rejected_percent=percent)

    def select(
        self,
        label: str,
        predictions: Output,
        settings: SelectSettings,
        keep: Output | None = None,
        on: str = "pool",
    ) -> Output:
        """What `settings` choose from answers on the collection called `on`."""
        labelled = None
        if settings.cut == "adamatch":
            teacher = read_output(self.run.store, predictions.summary["model"])
            assert teacher is not None, "predictions were made by a model of the store"
            # the labelled images must be scored as the pool was, at the temperature that was fitted for it
            scored = self.run.store.step_json(predictions.step, "record.json")["settings"]
            same = self.settings.predict.model_copy(update={"temperature": scored.get("temperature", 1.0)})
            labelled = evaluate(self.run, f"{label} labelled", teacher, self.scope("labelled"), self.task, same)
        known = {name: collection for name, collection in self.known.items() if name != on}
        around = ReferenceSets(self.collections[on], known)
        return select(self.run, label, predictions, SelectSpec(settings, self.classes, keep, labelled, around))

    def mix(self, label: str, answers: Output, truth_share: float) -> Output:
        """`answers`, a selection of the labelled images, with their true labels mixed into its targets."""
        if truth_share == 0:
            return answers
        labelled = self.collections["labelled"]
        truth = labelled.class_indices(self.classes)

        def work(step: Step) -> Output:
            started = time.time()
            parts = [
                step.put_part(part.unit, mix_table(table, truth[labelled.at(table)], truth_share, len(self.classes)))
                for part, table in read_tables(answers, self.run.store.fs)
            ]
            return step.commit(parts, answers.summary, started)

        inputs = {"answers": answers.digest, "labelled": labelled.digest, "classes": self.classes.hash}
        return self.run.find_or_run_step(
            label, StepRecord("mix", MIX_REVISION, {"truth_share": truth_share}, inputs), work
        )

    def outputs(self, label: str, predictions: Output, truth_share: float) -> Output:
        """Raw outputs on the labelled images, their true labels mixed in, as targets."""
        labelled = self.collections["labelled"]
        truth, number = labelled.class_indices(self.classes), len(self.classes)

        def tables() -> Iterator[pa.Table]:
            for _, table in read_tables(predictions, self.run.store.fs):
                made = output_targets(raw_outputs(table, number), truth[labelled.at(table)], truth_share)
                count = pa.array(np.ones(table.num_rows, np.int32))
                columns = {"shard": table["shard"], "row": table["row"], "count": count}
                yield pa.table({**columns, **{name: made[name] for name in made.column_names}})

        inputs = {"answers": predictions.digest, "labelled": labelled.digest, "truth_share": str(truth_share)}
        return self.targets(label, tables(), inputs, "logits")

    def selected_images(self, pseudo: Output) -> Subset:
        """The images that a selection holds."""
        return Subset(np.unique(addresses_in(pseudo, self.run.store)))

    def arranged(self, label: str, pseudo: Output, on: str = "pool") -> Arranged:
        """A selection from the collection called `on`, in the order of its images: the step that `gather` with this label makes."""
        return arrange(self.run, f"{label} {verb_of(pseudo)}", pseudo, self.collections[on])

    def reassign(self, label: str, predictions: Output, filtered: Output, settings: SelectSettings) -> Output:
        """The images of the selection `filtered` with the labels that `predictions` give them, whatever their scores."""
        everything = SelectSettings(targets=settings.targets, temperature=settings.temperature)
        fresh = self.select(f"{label} all", predictions, everything)

        def work(step: Step) -> Output:
            started = time.time()
            part = next(FanOut(self.run, label, step).map(put_reassigned, [filtered], fresh, step))
            return step.commit([part], {"selected": part.rows, "predictions": predictions.step}, started)

        inputs = {"filtered": filtered.digest, "fresh": fresh.digest}
        return self.run.find_or_run_step(label, StepRecord("reassign", REASSIGN_REVISION, {}, inputs), work)

    def gather(self, label: str, pseudo: Output, on: str = "pool") -> GatheredSource:
        """Training shards of the images of `on` that have targets."""
        check = on != "pool"  # the pool's images were decoded when they were labelled
        if self.task.merges_picks and "kind" not in pseudo.summary:
            picks = self.arranged(label, pseudo, on).tables(COLUMNS)
            made = (self.task.pseudo_targets(table) for table in picks)
            pseudo = self.targets(f"{label} targets", made, {"pseudo": pseudo.digest})
        scope = replace(self.scope(on), exclusions=None)  # predictions know none of those that are excluded
        if (masks := self._predicted_masks(pseudo)) is not None:
            scope = replace(scope, collection=replace(scope.collection, masks=masks))
        output = gather(self.run, label, pseudo, scope, self.classes, check=check)
        return GatheredSource(output, training_set(output, self.run.store, self.classes))

    def _predicted_masks(self, pseudo: Output) -> Masks | None:
        """What a selection's images are to be learned as, pixel by pixel; None for targets that are no selection, and for whole images."""
        store = self.run.store
        predictions = read_output(store, pseudo.summary["predictions"]) if "predictions" in pseudo.summary else None
        if predictions is None:
            return None
        chosen = store.step_json(pseudo.step, "record.json")["settings"]
        return self.task.predicted_masks(predictions, store, chosen.get("pixel_threshold", 0.0))

    def evaluate(self, label: str, model: Output, on: str) -> Evaluated | None:
        """The score of `model` on the collection called `on`; None when the run has no such collection."""
        if on not in self.collections:
            return None
        settings = self._calibrated(label, model)
        output = evaluate(self.run, label, model, self.scope(on), self.task, settings)
        return Evaluated(score_of(output), output.step)

    def pseudo_quality(self, label: str, pseudo: Output, on: str = "pool") -> dict[str, Any]:
        """How many pseudo-labels there are and, where the truth is known, how many of them are right. For the report, never for
        training. `label`: that of its `gather`."""
        kept = sum(part.rows for part in pseudo.parts(self.run.store.fs))
        quality: dict[str, Any] = {"kept": kept, "correct": None, "step": pseudo.step, "on": on}
        images = self.collections[on]
        if kept and images.has_labels:
            arranged = self.arranged(label, pseudo, on)
            right = known = 0
            for shards, table in zip(arranged.ranges, arranged.tables(["shard", "row", "class"]), strict=True):
                truth = self.task.known_truth(images, shards)
                mine = table.filter(pa.array(truth.holds(table)))
                known += mine.num_rows
                right += int(self.task.correct(mine, truth).sum()) if mine.num_rows else 0
            quality["correct"] = right / known if known else None
        return quality

    def count_unknown(self) -> None:
        """Say how many labels of the pool are no classes: such images count as unlabelled, in reports too."""
        if "pool" not in self.collections:
            return
        counts = self.collections["pool"].manifest.label_counts
        unknown = {name: count for name, count in counts.items() if not self.task.knows(name)}
        if unknown:
            first = ", ".join(repr(name) for name in list(unknown)[:3])
            text = f"{sum(unknown.values()):,} of {sum(counts.values()):,} labels are none of the {len(self.classes)} classes (first: {first})"
            log_event("pool", f"{text}: unknown, not in reports")


def open_set(run: Run, name: str, uri: str, data: DataSettings) -> Collection:
    """The collection `name` of a run, with the masks that `data.masks` gives it. Raises ValueError for a labelled one without labels or masks."""
    uris = {str(split): masks for split, masks in data.masks.items()}
    collection = open_collection(run, name, uri, data, labelled=name != "pool" and name not in uris)
    return open_masks(run, collection, uris[name], data) if name in uris else collection


def class_list(labelled: Collection, given: list[str] | None) -> ClassList:
    """The classes of a set with one class per image. Raises ValueError as `known_classes` does."""
    return known_classes(labelled.label_names, given)
