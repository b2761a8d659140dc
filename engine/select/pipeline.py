"""Select on Ray: each task streams some parts of the predictions into a mergeable state; the states are merged in a tree."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from engine.ground.fanout import FanOut, TaskResources, task_slots
from engine.ground.progress import log_event
from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Output, Part, Step, Store, read_part, read_tables
from engine.labels.classes import ClassList
from engine.labels.stored import check_classes
from engine.select import part_groups
from engine.select.addresses import Addresses, addresses, drop_addresses
from engine.select.exclusion import ReferenceSets, exclusion, find_excluded, write_down
from engine.select.histogram_step import commit, count, read, record_of
from engine.select.passes import two_passes
from engine.select.report import SelectReport
from engine.select.route import route
from engine.select.rule import PassStatistics, make_rule
from engine.select.select import Selector
from engine.select.sticky import carry_over
from engine.settings.select import SelectSettings

REVISION = 2


@dataclass(frozen=True)
class SelectSpec:
    """What is selected of predictions.

    `keep`: an earlier selection whose images stay as they are and are not chosen again (the sticky mode); they stand beside the new ones in the
    result. `labelled`: what the teacher answered on labelled images, for AdaMatch's cut. `around`: the pool and the sets it must not be near, for
    exclusion by key and by likeness.
    """

    settings: SelectSettings
    classes: ClassList
    keep: Output | None = None
    labelled: Output | None = None
    around: ReferenceSets | None = None


def select(run: Run, label: str, predictions: Output, spec: SelectSpec) -> Output:
    """Pseudo-labels (schema.pseudo_labels) chosen from stored predictions; exact and identical however the work is split.

    Raises ValueError when the predictions, or the selection to keep, are of other classes.
    """
    settings, classes, keep = spec.settings, spec.classes, spec.keep
    for table in (predictions, keep):
        if table is not None:
            check_classes(table, run.store, classes)
    inputs = {"predictions": predictions.digest, "classes": classes.hash}
    if keep is not None:
        inputs["keep"] = keep.digest
    if settings.cut == "adamatch" and spec.labelled is not None:
        inputs["labelled"] = spec.labelled.digest
    excluded = exclusion(run, label, settings, spec.around)
    inputs |= excluded.inputs

    def work(step: Step) -> Output:
        started = time.time()
        fan_out = FanOut(run, label, step)
        parts = predictions.parts(step.fs)
        shares = _shares(parts)
        settled = addresses_in(keep, run.store)
        found = find_excluded(fan_out, predictions, shares, excluded, settings.score, settled)
        counts = write_down(step, found)
        out = np.unique(np.concatenate([settled, *found.values()]))
        seen = _seen(run, label, predictions, spec) if settings.needs_histogram else None
        empty = Selector(settings, classes, make_rule(settings, classes, seen))
        candidates = sum(part.rows for part in parts) * settings.classes_per_image
        width = _payload_bytes(predictions, parts, step, empty)
        limit = run.cluster.select_state_bytes
        way = route(len(classes), empty.rule.quota, candidates, width, limit, sticky=keep is not None)
        if way.name == "two passes":
            log_event(label, f"two passes over the disk: {way.reason}")
            pieces, report = two_passes(fan_out, predictions, parts, empty, out)
        else:
            state = fan_out.merged(fill, shares, run.store, predictions, empty, out)
            pieces, report = next(fan_out.map(put_selected, [state], step, keep, part_groups.PART_ROWS))
        for warning in report.warnings:
            log_event(label, warning)
        for reason, number in counts.items():
            log_event(label, f"{number} images left out: {reason}")
        selected = sum(part.rows for part in pieces)
        log_event(label, f"{selected} pseudo-labels from {sum(part.rows for part in parts)} predictions")
        summary = {
            "selected": selected,
            "predictions": predictions.step,
            "report": report.as_dict(),
            **({"left out": counts} if counts else {}),
        }
        output = step.commit(pieces, summary, started)
        part_groups.forget(step)
        return output

    return run.find_or_run_step(label, StepRecord("select", REVISION, settings, inputs), work)


def fill(parts: Sequence[Part], store: Store, predictions: Output, empty: Selector, left_out: Addresses) -> Selector:
    """The selection's state after some parts of the predictions."""
    state = empty.empty()
    for part in parts:
        state.update(drop_addresses(read_part(predictions, store.fs, part), left_out))
    return state


def put_selected(state: Selector, step: Step, keep: Output | None, part_rows: int) -> tuple[list[Part], SelectReport]:
    """The parts of a finished selection, those of `keep` among them, and the account of what was chosen."""
    table, report = state.finish()
    if keep is not None:
        table = carry_over(pa.concat_tables(table for _, table in read_tables(keep, step.fs)), table)
    return part_groups.put_pieces(step, table, len(state.classes), part_rows), report


def addresses_in(selection: Output | None, store: Store) -> Addresses:
    """Addresses (N,) of a selection's rows, part after part; none without a selection."""
    tables = () if selection is None else read_tables(selection, store.fs, ["shard", "row"])
    return np.concatenate([np.empty(0, np.int64), *(addresses(table) for _, table in tables)])


def _payload_bytes(predictions: Output, parts: Sequence[Part], step: Step, empty: Selector) -> int:
    """Bytes that soft targets need of a candidate."""
    if not parts or empty.settings.targets == "hard":
        return 0
    first = next(empty.candidates(read_part(predictions, step.fs, parts[0])), None)
    return sum(column.itemsize * column.shape[1] for column in first[4:]) if first else 0


def _shares(parts: Sequence[Part]) -> list[list[Part]]:
    """The parts of each leaf of the tree."""
    leaves = max(1, min(len(parts), 2 * task_slots(TaskResources())))
    return [[parts[i] for i in share] for share in np.array_split(np.arange(len(parts)), leaves)]


def _seen(run: Run, label: str, predictions: Output, spec: SelectSpec) -> PassStatistics:
    """The first pass of the cuts that depend on all scores: the histogram step, found or counted on the cluster."""
    num_classes, score = len(spec.classes), spec.settings.score

    def work(step: Step) -> Output:
        started = time.time()
        shares = _shares(predictions.parts(step.fs))
        counted = FanOut(run, label, step).merge(count, shares, run.store, predictions, num_classes, score)
        return commit(step, counted, started)

    output = run.find_or_run_step(f"{label} histogram", record_of(predictions, num_classes, score), work)
    counted = read(output, run.store, num_classes)
    confidence = None
    if spec.labelled is not None:
        confidence = np.concatenate([t["confidence"].to_numpy() for _, t in read_tables(spec.labelled, run.store.fs)])
    return PassStatistics(counted.best, counted.stored, confidence)
