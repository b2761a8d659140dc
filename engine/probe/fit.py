"""Fit a head on cached features, true labels and pseudo-labels, as a durable step: a model like any other."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from engine.embed.reading import check_same_network, read_all, read_rows
from engine.embed.statistics import read_scaling
from engine.gather.arrange import Arranged
from engine.ground.fanout import FanOut
from engine.ground.progress import log_event
from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Output, Part, Step, Store
from engine.images.collection import Collection
from engine.labels.classes import ClassList
from engine.labels.targets import Targets, dense
from engine.models.fetch import fetch_model
from engine.probe.choose import Choice, HeldOut, TrainingRows, choose_penalty, fit_chosen
from engine.probe.fold import save_folded
from engine.probe.heads import FILE, AnyHead, LinearHead, NeighbourHead, unscaled
from engine.probe.prototypes import prototypes
from engine.probe.reference import save_reference
from engine.settings.embed import EmbedSettings
from engine.settings.probe import HeadSettings

VERB, REVISION = "probe", 1
FEW_ROWS = 1 << 16
"""Images from which the driver itself fits a head; more are read and fitted on a worker."""


@dataclass(frozen=True)
class LabelledFeatures:
    """A cache and the collection that has the labels of its images."""

    features: Output
    collection: Collection

    def inputs(self, name: str) -> dict[str, str]:
        """What a step that reads it depends on."""
        return {name: self.features.digest, f"{name}_images": self.collection.digest}


@dataclass(frozen=True)
class PseudoFeatures:
    """A cache of the pool and a selection from it, in the pool's order."""

    features: Output
    picks: Arranged


@dataclass(frozen=True)
class HeadSpec:
    """What a head learns. `statistics`: the step of `find_scaling`; `validation`: what the penalty is chosen on."""

    settings: HeadSettings
    classes: ClassList
    backbone: Output
    embed: EmbedSettings
    labelled: LabelledFeatures
    statistics: Output
    validation: LabelledFeatures | None = None
    pseudo: PseudoFeatures | None = None

    def with_pseudo(self, pseudo: PseudoFeatures) -> "HeadSpec":
        """The same with pseudo-labels."""
        return replace(self, pseudo=pseudo)


def fit_head(run: Run, label: str, spec: HeadSpec) -> Output:
    """A head: `model/` is the network with the head as its classifier (for kind=knn its description alone), `head.safetensors` the head of cached
    features. Summary: {model, head, backbone, embed, kind, images, …}.

    Raises ValueError for features of different networks, for a class without a label, and for labels that are no classes.
    """
    caches = {"labelled": spec.labelled.features}
    inputs = {"backbone": spec.backbone.digest, "statistics": spec.statistics.digest} | spec.labelled.inputs("labelled")
    if spec.validation is not None and spec.settings.kind == "probe" and spec.settings.C is None:
        inputs |= spec.validation.inputs("validation")
        caches["validation"] = spec.validation.features
    if spec.pseudo is not None:
        inputs |= {"pool": spec.pseudo.features.digest, "pseudo": spec.pseudo.picks.output.digest}
        caches["pool"] = spec.pseudo.features
    check_same_network(list(caches.values()))

    def work(step: Step) -> Output:
        started = time.time()
        pseudo = 0 if spec.pseudo is None else int(spec.pseudo.picks.output.summary["rows"])
        rows = spec.labelled.features.summary["images"] + min(pseudo, spec.settings.max_images)
        if rows <= FEW_ROWS:
            parts, summary = put_head(step, spec)
        else:
            parts, summary = next(FanOut(run, label, step).map(put_head, [step], spec))
        log_event(label, f"{summary['kind']} of {summary['images']:,} images{_chosen(summary)}")
        return step.commit(parts, summary, started)

    settings = {"head": spec.settings, "embed": spec.embed, "classes": spec.classes.hash}
    return run.find_or_run_step(label, StepRecord(VERB, REVISION, settings, inputs), work)


def put_head(step: Step, spec: HeadSpec) -> tuple[list[Part], dict[str, object]]:
    """Fit the head and put its files; returns them and the step's summary."""
    rows = training_rows(step.store, spec)
    head, facts = make_head(step.store, spec, rows)
    summary: dict[str, object] = {
        "model": "model",
        "head": FILE,
        "kind": spec.settings.kind,
        "backbone": spec.backbone.step,
        "embed": spec.embed.model_dump(mode="json"),
        "images": len(rows.z),
        **facts,
    }
    names, backbone = list(spec.classes.names), fetch_model(spec.backbone, step.fs)
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder)
        (local / FILE).write_bytes(head.to_bytes())
        origin = {"head": spec.settings.kind, "backbone": spec.backbone.step}
        if isinstance(head, LinearHead):
            save_folded(local, backbone, head, names, origin)
        else:
            save_reference(local, backbone, names, origin)
        files = sorted(path.name for path in local.iterdir())
        parts = [
            step.put_file(unit, name if name == FILE else f"model/{name}", (local / name).read_bytes())
            for unit, name in enumerate(files)
        ]
    return parts, summary


def make_head(store: Store, spec: HeadSpec, rows: TrainingRows) -> tuple[AnyHead, dict[str, object]]:
    """The head of some rows, on features as the network gives them, and what is worth knowing of it."""
    settings, scaling = spec.settings, read_scaling(spec.statistics, store)
    mean, scale = torch.from_numpy(scaling.mean), torch.from_numpy(scaling.scale)
    if settings.kind == "knn":
        bank = torch.nn.functional.normalize(rows.z, dim=1)
        votes = rows.targets * rows.weights[:, None]
        return NeighbourHead(bank, votes, mean, scale, settings.neighbours, settings.temperature), {}
    if settings.kind == "prototypes":
        weight, bias = prototypes(rows.z, rows.targets, rows.weights, settings.temperature)
        return unscaled(weight, bias, mean, scale), {}
    chosen = Choice(settings.C, "settings", {}) if settings.C is not None else _choose(store, spec, rows)
    fitted = fit_chosen(rows, chosen)
    facts = {**asdict(chosen), "loss": fitted.loss, "iterations": fitted.iterations}
    return unscaled(fitted.weight, fitted.bias, mean, scale), facts


def training_rows(store: Store, spec: HeadSpec) -> TrainingRows:
    """Scaled features, targets and weights of the labelled images and the pseudo-labels. Raises ValueError for a class without an image."""
    z, labels = labelled_rows(store, spec, spec.labelled)
    counts = np.bincount(labels, minlength=len(spec.classes))
    if (counts == 0).any():
        missing = [spec.classes.names[c] for c in np.flatnonzero(counts == 0)[:5]]
        raise ValueError(f"labelled: no image with features for the classes {', '.join(missing)}. Label some.")
    targets = torch.nn.functional.one_hot(torch.from_numpy(labels), len(spec.classes)).float()
    if spec.pseudo is None:
        return TrainingRows(z, targets, torch.ones(len(z)), len(z))
    parts = list(pseudo_rows(store, spec, spec.pseudo))
    columns = zip((z, targets, torch.ones(len(z))), *parts, strict=True)
    every, wanted, weights = (torch.cat(column) for column in columns)
    return TrainingRows(every, wanted, weights, num_true=len(z))


def labelled_rows(store: Store, spec: HeadSpec, given: LabelledFeatures) -> tuple[Tensor, np.ndarray]:
    """Scaled features float32 (N, D) and classes int64 (N,) of a labelled collection."""
    where, features = read_all(given.features, store)
    labels = given.collection.class_indices(spec.classes)[given.collection.at(where)]
    return torch.from_numpy(read_scaling(spec.statistics, store)(features)), labels.astype(np.int64)


def pseudo_rows(store: Store, spec: HeadSpec, pseudo: PseudoFeatures) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Scaled features, targets and weights of the pseudo-labels, range by range; evenly spaced ones where they are more than `max_images`."""
    scaling, settings = read_scaling(spec.statistics, store), spec.settings
    step = max(1, -(-int(pseudo.picks.output.summary["rows"]) // settings.max_images))
    seen = 0
    for table in pseudo.picks.tables(["shard", "row", "classes", "weights", "count"]):
        first, seen = -seen % step, seen + table.num_rows
        picked = table.take(pa.array(np.arange(first, table.num_rows, step))) if step > 1 else table
        if not picked.num_rows:
            continue
        z = torch.from_numpy(scaling(read_rows(pseudo.features, store, picked)))
        lists = (picked[name].combine_chunks() for name in ("classes", "weights"))
        targets = torch.from_numpy(np.asarray(dense(Targets(*lists), len(spec.classes)), np.float32))
        weights = settings.pseudo_weight * torch.from_numpy(picked["count"].to_numpy().astype(np.float32))
        yield z, targets, weights


def _choose(store: Store, spec: HeadSpec, rows: TrainingRows) -> Choice:
    held = None
    if spec.validation is not None:
        z, labels = labelled_rows(store, spec, spec.validation)
        held = HeldOut(z, torch.from_numpy(labels))
    return choose_penalty(rows, held, spec.settings.folds)


def _chosen(summary: dict[str, object]) -> str:
    return f", C={summary['C']:g} ({summary['on']})" if "C" in summary else ""
