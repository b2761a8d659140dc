"""Labelling through Ray against its own bound, a DataLoader loop, Ray Data's documented pattern and Daft, interleaved on the same images and weights.

The bound is 1 / (1 / decode only + 1 / infer only), each on all cores with the decoder and the backend that the engine uses. Steady rates leave out
what came before the first answers (actor start); whole rates have it. CPU seconds are those of all processes from the first answers on: where other
work shares the machine, they are the fairer ratio.

    python -m tests.benchmarks.predict_loop make /bench/texture --kind texture --images 50000
    python -m tests.benchmarks.predict_loop run /bench/texture --size 224 --model resnet18 --repeats 3
    python -m tests.benchmarks.predict_loop run /bench/texture --size 64 --teacher /models/teacher --backend int8 --scaled --only engine bound
    python -m tests.benchmarks.predict_loop report /bench/texture

`run` appends to FOLDER/results.jsonl, so the rounds may be run in pieces; `report` takes the best of each contestant's rounds with equal settings.
"""

import argparse
import json
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.ground import allocator
from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.session import connect
from engine.ground.steps import Store, seconds_from_name
from engine.images.collection import Collection, open_collection
from engine.images.decode import decode_array
from engine.images.manifest import Manifest
from engine.images.scope import Scope
from engine.models.checkpoint import load
from engine.models.imported import find_model
from engine.predict import int8
from engine.predict.backends import Norm, build
from engine.predict.pipeline import PARQUET, predict
from engine.predict.predict_plan import decode_sample, sample
from engine.predict.predictor import Predictor
from engine.predict.shard_predictor import ShardPredictor
from engine.select.histogram_step import histograms
from engine.settings.cluster import ClusterSettings
from engine.settings.data import SourceSettings
from engine.settings.predict import PredictSettings
from tests.benchmarks.cpu_seconds import cpu_seconds
from tests.benchmarks.predict_material import make_pool, make_teacher
from tests.benchmarks.predict_rivals import daft, dataloader, ray_data, timed

BATCH = 256
"""Images a batch of the engine and of its bound; the rivals have batches of their own, which suit them better."""
CONTESTANTS = ("engine", "bound", "worker", "dataloader", "ray data", "daft")
ON_RAY = ("engine", "ray data")
SAME = ("size", "model", "workers", "images")
"""What has to be equal for contestants to be compared."""


def decode_only(manifest: Manifest, teacher: str, shards: list[int], scaled: bool) -> tuple[int, float, float]:
    """Images, wall and CPU seconds of reading and decoding alone, one thread."""
    torch.set_num_threads(1)
    loaded = load(Path(teacher))
    images, wall, cpu = 0, time.perf_counter(), time.process_time()
    for shard in shards:
        for batch in manifest.read(shard, batch_rows=BATCH):
            for image in batch["image"]:
                decode_array(image.as_buffer(), loaded.frame, scaled)
            images += batch.num_rows
    return images, time.perf_counter() - wall, time.process_time() - cpu


def infer_only(manifest: Manifest, teacher: str, backend: str, batches: int) -> tuple[int, float, float]:
    """Images, wall and CPU seconds of inference alone, one thread; normalisation belongs to it."""
    torch.set_num_threads(1)
    loaded = load(Path(teacher))
    size = loaded.img_size
    images = decode_sample(sample(Scope(Collection("images", manifest)), BATCH), loaded, scaled=False)
    norm = Norm(loaded.mean, loaded.std)
    quantised = int8.quantise(loaded.model, norm(images), BATCH) if backend == "int8" else None
    forward = build(backend, loaded.model, (BATCH, 3, size, size), torch.device("cpu"), quantised, norm)
    images = images.contiguous(memory_format=torch.channels_last)  # as the decoder leaves them
    with torch.inference_mode():
        forward(images)
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(batches):
            forward(images)
    return batches * BATCH, time.perf_counter() - wall, time.process_time() - cpu


def worker_only(
    manifest: Manifest, teacher: str, settings: PredictSettings, store: str, shards: list[int]
) -> tuple[int, float, float]:
    """Images, wall and CPU seconds of a worker's whole loop, parts written, without Ray; one thread."""
    torch.set_num_threads(1)
    loaded = load(Path(teacher))
    step = Store(store).open().step(StepRecord("predict", 0, settings, {"shards": str(shards)}))
    scope, quantised = Scope(Collection("images", manifest)), None
    if settings.backend == "int8":
        images = decode_sample(sample(scope, BATCH), loaded, scaled=False)
        quantised = int8.quantise(loaded.model, Norm(loaded.mean, loaded.std)(images), BATCH)
    labeller = ShardPredictor(scope, Predictor(Path(teacher), settings, quantised=quantised))
    done, wall, cpu = 0, time.perf_counter(), time.process_time()
    for shard in shards:
        labelled = labeller(shard)
        step.put_part(shard, labelled.predictions, {"rejected": labelled.rejected}, vars(labelled.seconds), **PARQUET)
        done += labelled.predictions.num_rows
    return done, time.perf_counter() - wall, time.process_time() - cpu


def on_all_cores(
    workers: int, task: Callable[..., tuple[int, float, float]], *arguments: list[Any]
) -> tuple[float, float]:
    """Images a second of `workers` processes at the same time, and CPU seconds of 1000 images."""
    with ProcessPoolExecutor(workers, get_context("spawn"), allocator.keep_freed) as pool:
        done = list(pool.map(task, *arguments))
    images = sum(one[0] for one in done)
    return sum(one[0] / one[1] for one in done), 1000 * sum(one[2] for one in done) / images


class Contest:
    """One pool, one teacher, one set of settings."""

    def __init__(self, folder: Path, teacher: Path, settings: PredictSettings, workers: int, shard: int) -> None:
        self.folder, self.teacher, self.settings, self.workers, self.shard = folder, teacher, settings, workers, shard
        self.pool, self.files = folder / "pool.parquet", folder / "files"
        self.backend = settings.backend

    def engine(self) -> dict[str, Any]:
        """The engine's own steps, predict and histogram, in a store of their own each time."""
        store = Store(str(self.folder / f"store-{time.time_ns()}"))
        run = Run(store, "run", ClusterSettings(label={"workers": self.workers}))
        images = open_collection(run, "pool", str(self.pool), SourceSettings(rows_per_shard=self.shard))
        model = find_model(run, str(self.teacher))
        classes = len(load(self.teacher).class_names)
        with cpu_seconds() as curve:
            began = time.time()
            output = predict(run, "predict", model, Scope(images), self.settings)
            labelled = time.time()
            histograms(store, output, classes)
            ended = time.time()
        parts = sorted((path.stat().st_mtime, path.name) for path in (Path(output.folder) / "parts").glob("part-*"))
        spent: Counter[str] = Counter()
        for _, name in parts:
            spent.update(seconds_from_name(name))
        first, last = (
            parts[self.workers - 1][0],
            parts[-1][0],
        )  # the shards that were begun when the clock starts do not count
        later = images.manifest.num_rows - self.workers * self.shard
        plan = store.step_json(output.step, "plan.json")
        shutil.rmtree(store.root)
        self.backend = plan["predict"]["backend"]
        return {
            "steady": later / max(1e-9, last - first),
            "whole": images.manifest.num_rows / (ended - began),
            "cpu": 1000 * curve.between(first, last) / later,
            "backend": self.backend,
            "write share": spent["write"] / max(1e-9, sum(spent.values())),
            "histogram share": (ended - labelled) / (ended - began),
            "shares": {stage: round(seconds / sum(spent.values()), 4) for stage, seconds in spent.items()},
            "agreement": plan.get("backend", {}).get("agreement", {}).get(self.backend),
        }

    def bound(self) -> dict[str, Any]:
        """Both stages alone on all cores, and what they make together. Takes the backend that the engine chose before it in this run."""
        run = Run(Store(str(self.folder / "listed")), "run", ClusterSettings())
        manifest = open_collection(run, "pool", str(self.pool), SourceSettings(rows_per_shard=self.shard)).manifest
        many = self.workers
        shards = np.arange(min(manifest.num_shards, 4 * many))
        shares = [share.tolist() for share in np.array_split(shards, many)]
        backend = "channels_last" if self.backend == "auto" else self.backend
        fixed = ([manifest] * many, [str(self.teacher)] * many)
        rate, cpu = on_all_cores(many, decode_only, *fixed, shares, [self.settings.decode == "scaled"] * many)
        infer, infer_cpu = on_all_cores(many, infer_only, *fixed, [backend] * many, [24] * many)
        return {
            "steady": 1 / (1 / rate + 1 / infer),
            "whole": 0.0,
            "cpu": cpu + infer_cpu,
            "decode": rate,
            "infer": infer,
            "backend": backend,
        }

    def worker(self) -> dict[str, Any]:
        """The worker's loop on the shards that the bound decodes."""
        run = Run(Store(str(self.folder / "listed")), "run", ClusterSettings())
        manifest = open_collection(run, "pool", str(self.pool), SourceSettings(rows_per_shard=self.shard)).manifest
        many, store = self.workers, self.folder / f"store-{time.time_ns()}"
        shares = [share.tolist() for share in np.array_split(np.arange(min(manifest.num_shards, 4 * many)), many)]
        backend = "channels_last" if self.backend == "auto" else self.backend
        settings = self.settings.model_copy(update={"backend": backend})
        fixed = ([manifest] * many, [str(self.teacher)] * many, [settings] * many, [str(store)] * many)
        rate, cpu = on_all_cores(many, worker_only, *fixed, shares)
        shutil.rmtree(store)
        return {"steady": rate, "whole": 0.0, "cpu": cpu, "backend": backend}

    def run(self, contestant: str) -> dict[str, Any]:
        match contestant:
            case "engine":
                return self.engine()
            case "bound":
                return self.bound()
            case "worker":
                return self.worker()
            case "dataloader":
                return timed(lambda: dataloader(self.files, self.teacher, self.workers)).record()
            case "ray data":
                return timed(lambda: ray_data(self.files, self.teacher, self.workers)).record()
            case "daft":
                return timed(lambda: daft(self.pool, self.teacher, self.workers)).record()
        raise ValueError(f"{contestant}: not one of {', '.join(CONTESTANTS)}")


def contest(arguments: argparse.Namespace) -> None:
    """Run the rounds, each contestant once a round."""
    folder: Path = arguments.folder
    teacher = arguments.teacher or make_teacher(
        folder / f"teacher-{arguments.model}-{arguments.size}", arguments.model, arguments.size
    )
    settings = PredictSettings(
        batch_size=BATCH, backend=arguments.backend, decode="scaled" if arguments.scaled else "full"
    )
    case = Contest(folder, teacher, settings, arguments.workers, arguments.shard)
    same = {
        "size": load(teacher).img_size,
        "model": str(arguments.teacher or arguments.model),
        "workers": arguments.workers,
        "images": len(list(case.files.iterdir())),
        "asked": f"{arguments.backend}{' scaled' if arguments.scaled else ''}",
    }
    on_ray = any(one in ON_RAY for one in arguments.only)
    with connect(ClusterSettings(num_cpus=arguments.workers)) if on_ray else nullcontext():
        for _ in range(arguments.repeats):
            for contestant in arguments.only:
                line = {**same, "contestant": contestant, **case.run(contestant), "date": time.strftime("%F %T")}
                print(json.dumps(line), flush=True)
                with open(folder / "results.jsonl", "a") as file:
                    file.write(json.dumps(line) + "\n")


def report(folder: Path) -> list[str]:
    """A table for every setting that was run: the best of each contestant's rounds, and how often faster than it the engine is."""
    runs = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in runs:
        groups[", ".join(f"{name} {one[name]}" for name in SAME)].append(one)
    return [line for name, group in groups.items() for line in ["", name, "", *_table(group)]]


def _table(group: list[dict[str, Any]]) -> list[str]:
    """Engine, bound and worker a setting of the engine (`asked`); rivals are of all. Where only the worker was run, it stands for the engine."""
    asked = list(dict.fromkeys(one["asked"] for one in group if one["contestant"] in ("engine", "worker")))
    lines = [
        "| | images/s | engine is x | CPU s a 1000 | engine's is 1/ | whole images/s |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name in asked:
        engine = _best(group, "engine", name) or _best(group, "worker", name)
        lines.append(
            f"| **{engine['contestant']}, {name}** ({engine['backend']}) | {engine['steady']:.0f} | | {engine['cpu']:.2f} | | {engine['whole']:.0f} |"
        )
        rivals = {
            rival: _best(group, rival, name if rival in ("bound", "worker") else None) for rival in CONTESTANTS[1:]
        }
        lines += [_row(rival, found, engine) for rival, found in rivals.items() if found]
        if "write share" in engine:
            lines.append(f"| writing {engine['write share']:.2%} of the worker's time | | | | | |")
    return lines


def _row(rival: str, found: dict[str, Any], engine: dict[str, Any]) -> str:
    faster, cpu = engine["steady"] / found["steady"], found["cpu"] / engine["cpu"]
    return f"| {rival} | {found['steady']:.0f} | {faster:.2f} | {found['cpu']:.2f} | {cpu:.2f} | {found['whole']:.0f} |"


def _best(group: list[dict[str, Any]], contestant: str, asked: str | None) -> Any:
    """Best rate and, on its own, least CPU of a contestant's rounds; None when it was not run."""
    found = [one for one in group if one["contestant"] == contestant and asked in (None, one["asked"])]
    if not found:
        return None
    return {**max(found, key=lambda one: one["steady"]), "cpu": min(one["cpu"] for one in found)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True, dest="verb")
    make = verbs.add_parser("make", help="the pool")
    make.add_argument("--images", type=int, default=50_000)
    make.add_argument("--kind", choices=["texture", "cifar", "photo"], default="texture")
    make.add_argument("--cifar", type=Path)
    go = verbs.add_parser("run", help="the rounds")
    go.add_argument("--size", type=int, default=64)
    go.add_argument("--model", default="resnet18")
    go.add_argument("--teacher", type=Path, help="a trained model folder; random weights of --model when not given")
    go.add_argument("--backend", default="auto")
    go.add_argument("--scaled", action="store_true")
    go.add_argument("--workers", type=int, default=2)
    go.add_argument("--shard", type=int, default=1024, help="rows of a shard")
    go.add_argument("--repeats", type=int, default=3)
    go.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    told = verbs.add_parser("report", help="the tables")
    for verb in (make, go, told):
        verb.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    if arguments.verb == "make":
        make_pool(arguments.folder, arguments.images, arguments.kind, arguments.cifar)
    elif arguments.verb == "run":
        contest(arguments)
    else:
        print("\n".join(report(arguments.folder)))


if __name__ == "__main__":
    main()
