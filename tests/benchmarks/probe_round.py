"""A round of self-training on 50,000 cached images: predict, select and fit a probe, and thirty thresholds, without a pixel.

    python -m tests.benchmarks.probe_round OUT [--images 50000] [--dim 1280]

The features are random blobs, put into a store as `embed` would: what is measured does not depend on what they mean.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from engine.embed.backbone import make_backbone
from engine.embed.pipeline import PARQUET, REVISION, VERB, embed
from engine.embed.shard_embedder import feature_table
from engine.embed.statistics import find_scaling
from engine.gather.arrange import arrange
from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.session import connect
from engine.ground.steps import Output, Step, Store
from engine.images.collection import Collection, open_collection
from engine.images.scope import Scope
from engine.labels.classes import ClassList
from engine.models.build import build_model
from engine.models.checkpoint import save
from engine.models.imported import find_model
from engine.probe.fit import HeadSpec, LabelledFeatures, PseudoFeatures, fit_head
from engine.probe.predicting import predict
from engine.select.pipeline import SelectSpec, select
from engine.settings.cluster import ClusterSettings
from engine.settings.data import SourceSettings
from engine.settings.embed import EmbedSettings
from engine.settings.model import ModelSettings
from engine.settings.predict import PredictSettings
from engine.settings.probe import HeadSettings
from engine.settings.select import SelectSettings
from engine.tables import schema

CLASSES = ClassList(tuple(f"class {c}" for c in range(10)))
LABELLED = 250
ROWS = 2048


def collect(run: Run, out: Path, name: str, images: int) -> Collection:
    """A collection of images that nobody will read, labelled in turn."""
    path = out / f"{name}.parquet"
    if not path.exists():
        labels = [CLASSES.names[n % 10] for n in range(images)]
        pq.write_table(pa.table({"image": [b"x"] * images, "label": labels}), path, row_group_size=ROWS)
    return open_collection(run, name, str(path), SourceSettings(rows_per_shard=ROWS))


def put_features(run: Run, backbone: Output, collection: Collection, dim: int) -> Output:
    """Blobs around ten centres as the embed step of a collection."""
    centres = np.random.default_rng(0).normal(size=(10, dim))

    def work(step: Step) -> Output:
        parts = []
        for shard, rows in enumerate(collection.manifest.rows.tolist()):
            rng = np.random.default_rng((1, shard, rows))
            values = centres[(shard * ROWS + np.arange(rows)) % 10] + 9 * rng.normal(size=(rows, dim))
            at, contents = np.arange(rows, dtype=np.int32), [bytes(16)] * rows
            table = feature_table(shard, at, contents, values.astype(np.float16), schema.features(dim))
            parts.append(step.put_part(shard, table, {"reasons": {}, "rejected": 0, "excluded": 0}, **PARQUET))
        summary = {
            "model": backbone.step,
            "images": collection.manifest.num_rows,
            "rejected": 0,
            "excluded": 0,
            "reasons": {},
        }
        return step.commit(parts, summary, time.time())

    inputs = {"model": backbone.digest, "images": collection.manifest.digest}
    return run.find_or_run_step(f"embed {collection.name}", StepRecord(VERB, REVISION, {}, inputs), work)


def make_network(run: Run, out: Path, dim: int) -> Output:
    """A network whose features would have `dim` values."""
    settings = ModelSettings(model="resnet8_cifar", img_size=16, model_args={"width": dim // 8})
    folder = out / f"network-{dim}"
    if not folder.exists():
        torch.manual_seed(0)
        save(folder, build_model(settings, 10), settings, list(CLASSES.names))
    return make_backbone(run, settings, find_model(run, str(folder), as_init=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=1280)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    run = Run(Store(str(args.out / f"store-{time.time():.0f}")), "round", ClusterSettings())
    took: dict[str, float] = {}
    with connect(ClusterSettings()):
        backbone = make_network(run, args.out, args.dim)
        labelled, pool = (
            collect(run, args.out, name, n) for name, n in (("labelled", LABELLED), ("pool", args.images))
        )
        caches = {one.name: put_features(run, backbone, one, args.dim) for one in (labelled, pool)}
        scaling = find_scaling(run, "scale", caches["pool"])
        spec = HeadSpec(
            HeadSettings(C=1.0),  # about what is chosen for as many images of CIFAR-10
            CLASSES,
            backbone,
            EmbedSettings(),
            LabelledFeatures(caches["labelled"], labelled),
            scaling,
        )
        model = fit_head(run, "teacher fit", spec)
        for number in (1, 2):  # Ray's workers start in the first
            parts, model = one_round(run, f"round {number}", model, pool, spec)
            took |= {f"round {number}: {name}": value for name, value in parts.items()}
        predictions = predict(run, "thresholds predict", model, Scope(pool), PredictSettings())
        started = time.perf_counter()
        for n in range(30):
            select(run, f"threshold {n}", predictions, SelectSpec(SelectSettings(threshold=0.3 + 0.02 * n), CLASSES))
        took["thirty thresholds"] = time.perf_counter() - started
    size = sum(part.bytes for part in caches["pool"].parts(run.store.fs))
    print(f"cache: {size / args.images / args.dim:.3f} bytes per dimension and image")
    for name, seconds in took.items():
        print(f"{name}: {seconds:.1f} s")


def one_round(run: Run, name: str, model: Output, pool: Collection, spec: HeadSpec) -> tuple[dict[str, float], Output]:
    """Seconds of predict, select (the half that is surest, per class) and fit, and the head."""
    marks = [time.perf_counter()]
    predictions = predict(run, f"{name} predict", model, Scope(pool), PredictSettings())
    marks.append(time.perf_counter())
    chosen = SelectSettings(per_class=pool.manifest.num_rows // 20, targets="hard")
    pseudo = select(run, f"{name} select", predictions, SelectSpec(chosen, CLASSES))
    marks.append(time.perf_counter())
    picks = arrange(run, f"{name} picks", pseudo, pool)
    cache = embed(run, spec.backbone, Scope(pool), spec.embed)  # found
    found = fit_head(run, f"{name} fit", spec.with_pseudo(PseudoFeatures(cache, picks)))
    marks.append(time.perf_counter())
    steps = dict(zip(("predict", "select", "fit"), np.diff(marks).tolist(), strict=True))
    return {**steps, "all": marks[-1] - marks[0]}, found


if __name__ == "__main__":
    main()
