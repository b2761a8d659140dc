"""What the job costs over a bare torch loop: images/s of predict and of fit, same images, same weights, one core each, interleaved.

    python tests/benchmarks/job_overhead.py CIFAR MODEL [--rounds 3]

CIFAR: the folder of train-*.parquet; MODEL: a model folder of the engine. The job's rates are steady ones, read from what it leaves in the store:
for predict from the parts' times of writing after the first, for fit as logged over the last steps. The bare loops have no start to leave out.
"""

import argparse
import json
import shutil
import statistics
import tempfile
from multiprocessing import get_context
from pathlib import Path

import pyarrow.fs as pafs

from engine.fit.source import GatheredSource
from engine.fit.trainer import FitSpec, fit
from engine.gather.pipeline import gather_labelled, training_set
from engine.ground import storage
from engine.ground.run import Run
from engine.ground.session import connect
from engine.ground.steps import Store
from engine.images.collection import open_collection
from engine.images.scope import Scope
from engine.labels.classes import ClassList
from engine.models.imported import find_model
from engine.predict.pipeline import predict
from engine.settings.cluster import ClusterSettings
from engine.settings.data import DataSettings
from engine.settings.fit import FitSettings, NoiseSettings
from engine.settings.model import ModelSettings
from engine.settings.predict import PredictSettings
from tests.benchmarks import bare

MODEL = ModelSettings(model="resnet8_cifar", img_size=32)
NOISE = NoiseSettings(pad=4, aa_num_ops=1, aa_magnitude=5, aa_uniform=True, cutout=8)
FIT = FitSettings(
    steps=400, batch={"labelled": 64}, noise={"labelled": NOISE}, log_every=200, checkpoint_every=400, amp=True
)
PREDICT = PredictSettings(backend="bf16", batch_size=128)
CLUSTER = ClusterSettings(num_cpus=1)


def job_rates(cifar: Path, model: Path) -> dict[str, float]:
    """One predict and one fit through the job, in a store of their own."""
    folder = tempfile.mkdtemp(prefix="overhead-")
    data = DataSettings(labelled=str(cifar / "train-00.parquet"), rows_per_shard=1000)
    run = Run(Store(folder), "overhead", CLUSTER)
    with connect(CLUSTER):
        images = open_collection(run, "images", data.labelled, data, labelled=True)
        classes = ClassList.from_names(images.label_names)
        predicted = predict(run, "predict", find_model(run, str(model)), Scope(images), PREDICT)
        infos = run.store.fs.get_file_info(pafs.FileSelector(f"{predicted.folder}/parts"))
        written = sorted(info.mtime_ns / 1e9 for info in infos)
        gathered = gather_labelled(run, "gather", Scope(images), classes)
        source = GatheredSource(gathered, training_set(gathered, run.store, classes))
        fitted = fit(run, "fit", FitSpec(MODEL, FIT, classes), {"labelled": source})
        progress = json.loads(storage.get(run.store.fs, f"{fitted.folder}/progress.json"))
    shutil.rmtree(folder)
    return {"predict": 1000 * (len(written) - 1) / (written[-1] - written[0]), "fit": progress["images_per_second"]}


def bare_rates(cifar: Path, model: Path) -> dict[str, float]:
    paths = [cifar / "train-00.parquet"]
    return {
        "predict": bare.predict_rate(paths, model, PREDICT.batch_size, amp=True),
        "fit": bare.fit_rate(FIT, MODEL, NOISE, FIT.steps // 2, amp=True),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {"bare": [], "job": []}
    for _ in range(arguments.rounds):
        for name, measure in (("bare", bare_rates), ("job", job_rates)):
            with get_context("spawn").Pool(1) as process:  # a fresh process each: no warm caches, no leftover threads
                found[name].append(process.apply(measure, (arguments.cifar, arguments.model)))
    print("| verb | bare loop, images/s | job, images/s | job / bare, median of rounds (all) |\n|---|---:|---:|---:|")
    for verb in ("predict", "fit"):
        ratios = [job[verb] / loop[verb] for job, loop in zip(found["job"], found["bare"], strict=True)]
        best = {name: max(one[verb] for one in rates) for name, rates in found.items()}
        shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"| {verb} | {best['bare']:.0f} | {best['job']:.0f} | {statistics.median(ratios):.2f} ({shown}) |")


if __name__ == "__main__":
    main()
