"""Select on Ray: each task streams some parts of the predictions into a mergeable state; the states are merged in a tree."""

import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import ray

from engine.ground.progress import log_event
from engine.ground.record import StepRecord
from engine.ground.resources import ANYWHERE
from engine.ground.run import Run
from engine.ground.steps import Output, Part, Step, read_part, read_tables
from engine.labels.classes import ClassList
from engine.select.addresses import Addresses, addresses, drop_addresses
from engine.select.exclusion import ReferenceSets, exclusion, find_excluded, write_down
from engine.select.histogram_step import commit, count, read, record_of
from engine.select.part_groups import forget, put_pieces
from engine.select.passes import two_passes
from engine.select.route import route
from engine.select.rule import PassStatistics, make_rule
from engine.select.select import Selector
from engine.select.sticky import carry_over
from engine.settings.select import SelectSettings

REVISION = 2
FAN_IN = 8


def select(
    run: Run,
    label: str,
    predictions: Output,
    classes: ClassList,
    settings: SelectSettings,
    keep: Output | None = None,
    labelled: Output | None = None,
    around: ReferenceSets | None = None,
) -> Output:
    """Pseudo-labels (schema.pseudo_labels) chosen from stored predictions; exact and identical however the work is split.

    `keep`: an earlier selection whose images stay as they are and are not chosen again (the sticky mode). They stand
    beside the new ones in the result. `labelled`: what the teacher answered on labelled images (evaluate's ANSWERS), for AdaMatch's cut.
    `around`: the pool and the sets it must not be near, for exclusion by key and by likeness.
    """
    inputs = {"predictions": predictions.digest, "classes": classes.hash}
    if keep is not None:
        inputs["keep"] = keep.digest
    if settings.cut == "adamatch" and labelled is not None:
        inputs["labelled"] = labelled.digest
    excluded = exclusion(run, label, settings, around)
    inputs |= excluded.inputs

    def work(step: Step) -> Output:
        started = time.time()
        parts = predictions.parts(step.fs)
        kept = pa.concat_tables(table for _, table in read_tables(keep, step.fs)) if keep is not None else None
        settled = addresses(kept) if kept is not None else np.empty(0, np.int64)
        shares, score = _shares(parts), settings.score
        found = find_excluded(run.store, predictions, shares, excluded, around, score, settled)
        counts = write_down(step, found)
        out = np.unique(np.concatenate([settled, *found.values()]))
        seen = _seen(run, label, predictions, parts, classes, settings, labelled) if settings.needs_histogram else None
        empty = Selector(settings, classes, make_rule(settings, classes, seen))
        candidates = sum(part.rows for part in parts) * settings.classes_per_image
        width = _payload_bytes(predictions, parts, step, empty)
        limit = run.cluster.select_state_bytes
        way = route(len(classes), empty.rule.quota, candidates, width, limit, sticky=keep is not None)
        if way.name == "two passes":
            log_event(label, f"two passes over the disk: {way.reason}")
            pieces, report = two_passes(label, step, predictions, parts, empty, out)
        else:
            table, report = _tree(step, predictions, shares, empty, out).finish()
            pieces = put_pieces(step, table if kept is None else carry_over(kept, table), len(classes))
        for warning in report.warnings:
            log_event(label, warning)
        for reason, number in counts.items():
            log_event(label, f"{number} images left out: {reason}")
        selected = sum(part.rows for part in pieces)
        log_event(label, f"{selected} pseudo-labels from {sum(part.rows for part in parts)} predictions")
        summary = {"selected": selected, "report": report.as_dict(), **({"left out": counts} if counts else {})}
        output = step.commit(pieces, summary, started)
        forget(step)
        return output

    return run.find_or_run_step(label, StepRecord("select", REVISION, settings, inputs), work)


def _payload_bytes(predictions: Output, parts: Sequence[Part], step: Step, empty: Selector) -> int:
    """Bytes that soft targets need of a candidate."""
    if not parts or empty.settings.targets == "hard":
        return 0
    first = next(empty.candidates(read_part(predictions, step.fs, parts[0])), None)
    return sum(column.itemsize * column.shape[1] for column in first[4:]) if first else 0


def _tree(
    step: Step, predictions: Output, shares: Sequence[list[Part]], empty: Selector, left_out: Addresses
) -> Selector:
    """The merged state of all parts."""
    shared = ray.put(left_out)
    states = [_leaf.remote(step, predictions, share, empty, shared) for share in shares]
    while len(states) > 1:
        states = [_merge.remote(*states[i : i + FAN_IN]) for i in range(0, len(states), FAN_IN)]
    return ray.get(states[0])


def _shares(parts: Sequence[Part]) -> list[list[Part]]:
    """The parts of each leaf of the tree."""
    leaves = max(1, min(len(parts), 2 * int(ray.cluster_resources().get("CPU", 1))))
    return [[parts[i] for i in share] for share in np.array_split(np.arange(len(parts)), leaves)]


def _seen(
    run: Run,
    label: str,
    predictions: Output,
    parts: Sequence[Part],
    classes: ClassList,
    settings: SelectSettings,
    labelled: Output | None,
) -> PassStatistics:
    """The first pass of the cuts that depend on all scores: the histogram step, found or counted on the cluster."""

    def work(step: Step) -> Output:
        started = time.time()
        shares = [
            _count.remote(run.store, predictions, share, len(classes), settings.score) for share in _shares(parts)
        ]
        counted, *others = ray.get(shares)
        for other in others:
            counted.merge(other)
        return commit(step, counted, started)

    output = run.find_or_run_step(f"{label} histogram", record_of(predictions, len(classes), settings.score), work)
    counted = read(output, run.store, len(classes))
    confidence = None
    if labelled is not None:
        confidence = np.concatenate([t["confidence"].to_numpy() for _, t in read_tables(labelled, run.store.fs)])
    return PassStatistics(counted.best, counted.stored, confidence)


_count = ray.remote(scheduling_strategy=ANYWHERE, num_cpus=1)(count)


@ray.remote(scheduling_strategy=ANYWHERE, num_cpus=1)
def _leaf(step: Step, predictions: Output, parts: list[Part], state: Selector, left_out: Addresses) -> Selector:
    state = state.empty()
    for part in parts:
        state.update(drop_addresses(read_part(predictions, step.fs, part), left_out))
    return state


@ray.remote(scheduling_strategy=ANYWHERE, num_cpus=1)
def _merge(first: Selector, *others: Selector) -> Selector:
    merged = first.empty()
    for other in (first, *others):
        merged.merge(other)
    return merged
