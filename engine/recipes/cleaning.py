"""The verbs of label cleaning: folds, the audit of the labelled set by models that never saw the images they judge, and what is made of it."""

import csv
import io
import time
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from engine.fit.source import GatheredSource
from engine.ground.progress import log_event
from engine.ground.record import StepRecord, json_text
from engine.ground.steps import Output, Step, read_tables
from engine.images.subset import Subset
from engine.labels import targets
from engine.labels.by_key import ABSENT, EMPTY, labels_by_key
from engine.recipes.context import RecipeContext
from engine.select.audit import SCORED, audit_quality, confidence, disagreements, relabelled, scored, stratified_folds
from engine.settings.block import Block
from engine.settings.fit import LARGEST_SEED
from engine.tables import schema

REVISION = 1
SHOWN = 5
"""Suspects that the log names."""


class CleanOptions(Block):
    """How labels are judged, and what becomes of those that are denied."""

    folds: int = Field(
        5,
        ge=2,
        le=1000,
        description="number of models, each judging what it was not trained on; the post used 2 and advises 5",
    )
    fold_seed: int = Field(0, ge=0, le=LARGEST_SEED, description="random state of the split into folds")
    top: int = Field(
        5000, ge=1, le=10**9, description="most images listed for review, the most confident denials first"
    )
    list_above: float = Field(0.0, ge=0, lt=1, description="probability above which denials are listed")
    relabel_above: float | None = Field(
        None, ge=0, lt=1, description="probability above which denials take the model's label (default: none do)"
    )
    reviewed: str | None = Field(
        None,
        description="CSV or Parquet with key and label, such as a corrected audit.csv: these labels win; empty excludes the image (default: none)",
    )
    truth: str | None = Field(
        None,
        description="CSV or Parquet with key and label of every image, where errors were planted, for the report alone (default: none)",
    )


def fold_of(setup: RecipeContext, clean: CleanOptions) -> np.ndarray:
    """The fold (N,) of every labelled image in address order."""
    return stratified_folds(setup.collections["labelled"].class_indices(setup.classes), clean.folds, clean.fold_seed)


def subset(setup: RecipeContext, wanted: np.ndarray) -> Subset:
    """The labelled images that `wanted` (N,) marks."""
    labels = setup.collections["labelled"].manifest.labels()
    return Subset.of(labels["shard"].to_numpy()[wanted], labels["row"].to_numpy()[wanted])


def audit_labels(setup: RecipeContext, clean: CleanOptions, answers: list[Output], fold: np.ndarray) -> Output:
    """SCORED of the whole labelled set. `answers`: for each fold the answers of the model that left it out, on that fold."""
    labelled = setup.collections["labelled"]
    given = labelled.class_indices(setup.classes)

    def work(step: Step) -> Output:
        started = time.time()
        tables = [SCORED.empty_table()]
        for left_out, output in enumerate(answers):
            for _, table in read_tables(output, step.fs):
                place = labelled.at(table)
                tables.append(scored(table, given[place], fold[place], left_out))
        table = pa.concat_tables(tables).sort_by([("shard", "ascending"), ("row", "ascending")])
        denied = len(disagreements(table))
        return step.commit([step.put_part(0, table)], {"scored": table.num_rows, "denied": denied}, started)

    inputs = {f"fold {number}": output.digest for number, output in enumerate(answers)}
    inputs |= {"images": labelled.digest, "classes": setup.classes.hash}
    settings = {"folds": clean.folds, "seed": clean.fold_seed}
    return setup.run.find_or_run_step("audit", StepRecord("audit", REVISION, settings, inputs), work)


def publish(setup: RecipeContext, clean: CleanOptions, audited: Output) -> None:
    """Say what the audit found, and put the list of suspects beside the run's settings: audit.csv for a person's verdicts, audit.json."""
    classes = setup.classes
    table = _table(setup, audited)
    suspects = disagreements(table, clean.top, clean.list_above)
    labelled = setup.collections["labelled"]
    keys, place = labelled.manifest.keys()["key"], labelled.at(table)
    chosen = table.take(pa.array(suspects))
    rows = zip(
        keys.take(pa.array(place[suspects])).to_pylist(),
        [classes.names[i] for i in chosen["given"].to_pylist()],
        [classes.names[i] for i in chosen["predicted"].to_pylist()],
        confidence(chosen).tolist(),
        chosen["fold"].to_pylist(),
        strict=True,
    )
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(["key", "label", "predicted", "confidence", "fold"])
    for number, (key, label, predicted, sure, fold) in enumerate(rows):
        writer.writerow([key, label, predicted, f"{sure:.6g}", fold])
        if number < SHOWN:
            log_event("audit", f"{key}: labelled {label}, seen as {predicted} with {sure:.1%}")
    facts: dict[str, Any] = {**audited.summary, "listed": len(suspects)}
    if clean.truth is not None:
        truth = labels_by_key(clean.truth, keys, classes)[place]
        if (truth < 0).any():
            raise ValueError(f"recipe.truth: {clean.truth} lacks {int((truth < 0).sum())} of the labelled images")
        judged = audit_quality(suspects, table["given"].to_numpy().astype(np.int64), truth)
        facts |= {"wrong": judged.wrong, "recall": judged.recall, "precision": judged.precision}
        after = relabelled(table, clean.relabel_above)
        facts["wrong_after_relabelling"] = int((after != truth).sum())
    setup.run.put("audit.json", json_text(facts, indent=1).encode())
    where = setup.run.put("audit.csv", buffer.getvalue().encode())
    log_event("audit", f"{facts['denied']} of {facts['scored']} labels denied, {facts['listed']} listed in {where}")
    for m, share in facts.get("precision", {}).items():
        log_event("audit", f"of the first {m}, {share:.1%} are truly wrong")


def gather_cleaned(setup: RecipeContext, clean: CleanOptions, audited: Output) -> GatheredSource:
    """The labelled images with the labels that relabelling and a person's verdicts leave them."""
    labelled, classes = setup.collections["labelled"], setup.classes
    table = _table(setup, audited)
    labels = relabelled(table, clean.relabel_above)
    place = labelled.at(table)
    if clean.reviewed is not None:
        keys = labelled.manifest.keys()["key"]
        verdicts = labels_by_key(clean.reviewed, keys, classes)[place]
        labels = np.where(verdicts == ABSENT, labels, verdicts)
    keep = labels != EMPTY
    changed = int((labels[keep] != table["given"].to_numpy()[keep]).sum())

    def work(step: Step) -> Output:
        started = time.time()
        made = targets.hard(labels[keep], len(classes))
        kept = table.filter(pa.array(keep))
        columns = [kept["shard"], kept["row"], pa.array(np.ones(int(keep.sum()), np.int32)), *made]
        part = step.put_part(0, pa.Table.from_arrays(columns, schema=schema.targets(len(classes), classes.hash)))
        summary = {"changed": changed, "left_out": int((~keep).sum())}
        log_event("relabel", f"{changed} labels changed, {summary['left_out']} images left out")
        return step.commit([part], summary, started)

    settings = {"relabel_above": clean.relabel_above, "labels": fingerprint_of(labels)}
    record = StepRecord("relabel", REVISION, settings, {"audit": audited.digest})
    output = setup.run.find_or_run_step("relabel", record, work)
    return setup.gather("clean gather", output, on="labelled")


def fingerprint_of(labels: np.ndarray) -> str:
    """Digest of all labels, so that an edited table of verdicts is another step."""
    return Subset(labels.astype(np.int64)).digest[:16]


def _table(setup: RecipeContext, audited: Output) -> pa.Table:
    return pa.concat_tables(table for _, table in read_tables(audited, setup.run.store.fs))
