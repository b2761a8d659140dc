"""What backends and decoders that change answers do change: top-1 agreement with exact labels, and the Jaccard index of what is then selected.

Labels the pool once exactly and once a variant, on a teacher that has learnt (random weights say nothing of agreement). Selected: the best K of each
class, K = images / (20 classes), and those above 95 %.

    python -m tests.benchmarks.predict_agreement train /bench/teacher --cifar DIR --kind photo --size 64 --model resnet18
    python -m tests.benchmarks.predict_agreement compare /bench/photo /bench/teacher --variants int8 scaled int8+scaled
"""

import argparse
import time
from pathlib import Path

import pyarrow as pa
import torch

from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Store
from engine.images.collection import Collection, open_collection
from engine.images.manifest import Manifest
from engine.images.scope import Scope
from engine.labels.classes import ClassList
from engine.models.checkpoint import class_names
from engine.models.imported import find_model
from engine.predict.int8 import load_quantised
from engine.predict.job import PredictJob
from engine.predict.predict_plan import make_plan
from engine.predict.predictor import Predictor
from engine.predict.shard_predictor import ShardPredictor
from engine.select.pipeline import addresses
from engine.select.scores import classes_of
from engine.select.select import Selector
from engine.settings.cluster import ClusterSettings
from engine.settings.data import SourceSettings
from engine.settings.model import ModelSettings
from engine.settings.predict import PredictSettings
from engine.settings.select import SelectSettings
from tests.benchmarks.predict_material import train_teacher


def label(run: Run, manifest: Manifest, teacher: Path, settings: PredictSettings) -> tuple[pa.Table, float]:
    """Predictions of the whole collection, as a worker makes them, and the CPU seconds of 1000 images."""
    model = find_model(run, str(teacher))
    step = run.store.step(StepRecord("predict", 0, settings, {"at": str(time.time_ns())}))
    scope = Scope(Collection("images", manifest))
    plan = make_plan(PredictJob(step, scope, model, settings, torch.get_num_threads()), 1)
    obeyed = settings.model_copy(update=plan["predict"])
    quantised = load_quantised(step) if obeyed.backend == "int8" else None
    labeller = ShardPredictor(scope, Predictor(teacher, obeyed, quantised=quantised))
    began = time.process_time()
    table = pa.concat_tables([labeller(shard).predictions for shard in range(manifest.num_shards)])
    return table, 1000 * (time.process_time() - began) / manifest.num_rows


def jaccard(one: pa.Table, other: pa.Table, classes: ClassList, settings: SelectSettings) -> float:
    """Of the (image, class) pairs selected from either, the share selected from both."""
    chosen: list[set[tuple[int, int]]] = []
    for predictions in (one, other):
        selector = Selector(settings, classes)
        selector.update(predictions)
        table = selector.finish()[0]
        chosen.append(set(zip(addresses(table).tolist(), table["class"].to_pylist(), strict=True)))
    return len(chosen[0] & chosen[1]) / max(1, len(chosen[0] | chosen[1]))


def compare(pool: Path, teacher: Path, variants: list[str], store: Path) -> list[str]:
    """A table of the variants against exact labels."""
    run = Run(Store(str(store)), "run", ClusterSettings())
    manifest = open_collection(run, "pool", str(pool / "pool.parquet"), SourceSettings(rows_per_shard=1024)).manifest
    exact, cpu = label(run, manifest, teacher, PredictSettings())
    classes = ClassList(tuple(class_names(teacher)))
    best = SelectSettings(per_class=max(1, manifest.num_rows // (20 * len(classes))), targets="hard")
    sure = SelectSettings(threshold=0.95, targets="hard")
    lines = [
        "| | top-1 agrees | Jaccard, best K | Jaccard, above 95 % | CPU s a 1000 | x |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines.append(f"| exact | | | | {cpu:.2f} | 1.00 |")
    for variant in variants:
        backend = next((one for one in variant.split("+") if one != "scaled"), "auto")
        settings = PredictSettings.model_validate(
            {"backend": backend, "decode": "scaled" if "scaled" in variant else "full"}
        )
        other, spent = label(run, manifest, teacher, settings)
        agrees = float((classes_of(exact)[:, 0] == classes_of(other)[:, 0]).mean())
        sets = [jaccard(exact, other, classes, rule) for rule in (best, sure)]
        lines.append(f"| {variant} | {agrees:.2%} | {sets[0]:.3f} | {sets[1]:.3f} | {spent:.2f} | {cpu / spent:.2f} |")
    return [f"{manifest.num_rows} images, {len(classes)} classes, teacher {teacher.name}", "", *lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True, dest="verb")
    train = verbs.add_parser("train", help="a small teacher")
    train.add_argument("teacher", type=Path)
    train.add_argument("--cifar", type=Path, required=True)
    train.add_argument("--kind", choices=["cifar", "photo"], default="photo")
    train.add_argument("--model", default="resnet18")
    train.add_argument("--size", type=int, default=64)
    train.add_argument("--width", type=int, help="of the small CIFAR networks")
    train.add_argument("--images", type=int, default=10_000)
    train.add_argument("--steps", type=int, default=600)
    against = verbs.add_parser("compare", help="the table")
    against.add_argument("pool", type=Path, help="a folder of `predict_loop make`")
    against.add_argument("teacher", type=Path)
    against.add_argument("--variants", nargs="+", default=["int8", "scaled", "int8+scaled"])
    arguments = parser.parse_args()
    if arguments.verb == "train":
        a = arguments
        settings = ModelSettings(model=a.model, img_size=a.size, model_args={"width": a.width} if a.width else {})
        train_teacher(a.teacher, settings, a.cifar, a.kind, a.images, a.steps)
    else:
        store = arguments.pool / f"store-{time.time_ns()}"
        print("\n".join(compare(arguments.pool, arguments.teacher, arguments.variants, store)))


if __name__ == "__main__":
    main()
