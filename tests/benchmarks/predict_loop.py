"""Labelling through Ray against its own bound, a DataLoader loop and Ray Data's documented pattern, interleaved on the same images and weights.

The bound is 1 / (1 / decode only + 1 / infer only), each on all cores with the decoder and the backend that the engine uses. Steady rates leave out
what came before the first part (actor start); whole rates have it.

    python -m tests.benchmarks.predict_loop --images 50000 --kind texture --size 224 --model resnet18 --teacher /models/teacher --repeats 3
"""

import argparse
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from engine.images.collection import collect
from engine.images.decode import decode
from engine.images.manifest import Manifest
from engine.models.checkpoint import load
from engine.models.imported import find_model
from engine.predict.backends import build
from engine.predict.pipeline import predict
from engine.predict.start import normalised
from engine.run import Run
from engine.session import connect
from engine.settings import ClusterSettings, PredictSettings, SourceSettings
from engine.steps import Store, costs
from tests.benchmarks.predict_material import make_pool, make_teacher

BATCH = 64


def decode_only(manifest: Manifest, teacher: str, shards: list[int], scaled: bool) -> tuple[int, float]:
    """Images and seconds of decoding alone, one thread."""
    torch.set_num_threads(1)
    loaded = load(Path(teacher))
    count, started = 0, time.perf_counter()
    for shard in shards:
        for batch in manifest.read(shard, batch_rows=BATCH):
            for image in batch["image"]:
                decode(image.as_buffer(), loaded.img_size, loaded.crop_pct, loaded.interpolation, scaled=scaled)
                count += 1
    return count, time.perf_counter() - started


def infer_only(teacher: str, backend: str, batches: int) -> tuple[int, float]:
    """Images and seconds of inference alone, one thread; normalisation belongs to it."""
    torch.set_num_threads(1)
    loaded = load(Path(teacher))
    size = loaded.img_size
    forward = build(backend, loaded.model, (BATCH, 3, size, size), torch.device("cpu"))
    images = torch.randint(0, 256, (BATCH, 3, size, size), dtype=torch.uint8)
    started = time.perf_counter()
    with torch.inference_mode():
        for _ in range(batches):
            forward(normalised(images, loaded, "cpu"))
    return batches * BATCH, time.perf_counter() - started


def on_all_cores(workers: int, task: Callable[..., tuple[int, float]], *arguments: list[Any]) -> float:
    """Images a second of `workers` processes at the same time."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        done = list(pool.map(task, *arguments))
    return sum(count / seconds for count, seconds in done)


class Engine:
    """The engine's own step in a store of its own each time."""

    def __init__(self, folder: Path, pool: Path, teacher: Path, settings: PredictSettings, workers: int) -> None:
        self.folder, self.pool, self.teacher, self.settings, self.workers = folder, pool, teacher, settings, workers

    def __call__(self) -> dict[str, Any]:
        store = Store(str(self.folder / f"store-{time.time_ns()}"))
        run = Run(store, "run", ClusterSettings(num_workers=self.workers))
        images = collect(run, "pool", str(self.pool), SourceSettings(rows_per_shard=1024))
        model = find_model(run, str(self.teacher))
        began = time.time()
        output = predict(run, "predict", model, images, self.settings)
        whole = time.time() - began
        parts = Path(output.folder) / "parts"
        times = sorted((path.stat().st_mtime, path.name) for path in parts.glob("part-*"))
        spent: Counter[str] = Counter()
        for _, name in times:
            spent.update(costs(name))
        first = self.workers  # shards that were under way when the clock starts
        steady = (len(times) - first) * 1024 / max(1e-9, times[-1][0] - times[first - 1][0])
        plan = store.step_json(output.step, "plan.json")
        shutil.rmtree(store.root)
        return {
            "steady": steady,
            "whole": images.manifest.num_rows / whole,
            "backend": plan["predict"]["backend"],
            "write share": spent["write"] / max(1e-9, sum(spent.values())),
        }


class Files(torch.utils.data.Dataset[torch.Tensor]):
    """What people write first: Pillow, resize, tensor."""

    def __init__(self, folder: Path, size: int) -> None:
        self.paths, self.size = sorted(folder.iterdir()), size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.paths[index]) as image:
            small = image.convert("RGB").resize((self.size, self.size), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(small)).permute(2, 0, 1)


def dataloader_loop(files: Path, teacher: Path, workers: int) -> dict[str, Any]:
    """DataLoader with worker processes and the eager model on all cores."""
    loaded = load(teacher)
    torch.set_num_threads(workers)
    loader = torch.utils.data.DataLoader(Files(files, loaded.img_size), batch_size=BATCH, num_workers=workers)
    began = time.perf_counter()
    count, first = 0, 0.0
    with torch.inference_mode():
        for batch in loader:
            loaded.model(normalised(batch, loaded, "cpu")).softmax(1).topk(8)
            first = first or time.perf_counter()
            count += len(batch)
    ended = time.perf_counter()
    return {"steady": (count - BATCH) / max(1e-9, ended - first), "whole": count / (ended - began)}


def documented_ray_data(files: Path, teacher: Path, workers: int) -> dict[str, Any]:
    """`read_images` -> `map` -> `map_batches(actor)`, as Ray Data's guide to batch inference has it."""
    import ray

    size = load(teacher).img_size

    def shrink(row: dict[str, Any]) -> dict[str, Any]:
        image = Image.fromarray(row["image"]).resize((size, size), Image.Resampling.BILINEAR)
        return {"image": np.asarray(image).transpose(2, 0, 1)}

    class Infer:
        def __init__(self) -> None:
            torch.set_num_threads(1)
            self.loaded = load(teacher)

        def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            with torch.inference_mode():
                logits = self.loaded.model(normalised(torch.from_numpy(batch["image"]), self.loaded, "cpu"))
            scores, classes = logits.softmax(1).topk(8)
            return {"scores": scores.numpy(), "classes": classes.numpy()}

    began = time.perf_counter()
    images = ray.data.read_images(str(files), mode="RGB").map(shrink)
    # half a CPU an actor: whole ones would leave none to read with
    labelled = images.map_batches(
        Infer, batch_size=BATCH, compute=ray.data.ActorPoolStrategy(size=workers), num_cpus=0.5
    )
    count, first = 0, 0.0
    for batch in labelled.iter_batches(batch_size=BATCH):
        first = first or time.perf_counter()
        count += len(batch["scores"])
    ended = time.perf_counter()
    return {"steady": (count - BATCH) / max(1e-9, ended - first), "whole": count / (ended - began)}


def bound(pool: Path, folder: Path, teacher: Path, backend: str, scaled: bool, workers: int) -> dict[str, Any]:
    """Both stages alone on all cores, and what they make together."""
    run = Run(Store(str(folder / "bound")), "run", ClusterSettings())
    manifest = collect(run, "pool", str(pool), SourceSettings(rows_per_shard=1024)).manifest
    shares = [share.tolist() for share in np.array_split(np.arange(min(manifest.num_shards, 4 * workers)), workers)]
    fixed = ([manifest] * workers, [str(teacher)] * workers)
    decoded = on_all_cores(workers, decode_only, *fixed, shares, [scaled] * workers)
    inferred = on_all_cores(workers, infer_only, fixed[1], [backend] * workers, [16] * workers)
    return {"decode": decoded, "infer": inferred, "steady": 1 / (1 / decoded + 1 / inferred)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--kind", choices=["texture", "cifar"], default="texture")
    parser.add_argument("--cifar", type=Path)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--teacher", type=Path, help="a trained model folder; random weights of --model when not given")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--scaled", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rivals", nargs="*", default=["dataloader", "ray data"])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, connect(ClusterSettings(num_cpus=arguments.workers)):
        folder = Path(name)
        pool, files = make_pool(folder / "pool", arguments.images, arguments.kind, arguments.cifar)
        teacher = arguments.teacher or make_teacher(folder / "teacher", arguments.model, arguments.size)
        settings = PredictSettings(
            batch_size=BATCH, backend=arguments.backend, decode="scaled" if arguments.scaled else "full"
        )
        contestants: dict[str, Callable[[], dict[str, Any]]] = {
            "engine": Engine(folder, pool, teacher, settings, arguments.workers)
        }
        if "dataloader" in arguments.rivals:
            contestants["DataLoader + eager"] = lambda: dataloader_loop(files, teacher, arguments.workers)
        if "ray data" in arguments.rivals:
            contestants["Ray Data, documented"] = lambda: documented_ray_data(files, teacher, arguments.workers)
        runs: dict[str, list[dict[str, Any]]] = {one: [] for one in [*contestants, "bound"]}
        for _ in range(arguments.repeats):
            for contestant, go in contestants.items():
                runs[contestant].append(go())
            chosen = runs["engine"][-1]["backend"]
            runs["bound"].append(bound(pool, folder, teacher, chosen, arguments.scaled, arguments.workers))
    print(json.dumps(runs))
    lines = report(runs)
    print("\n".join(lines))
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n")


def report(runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Best of the repeats of each; ratios of the engine to the others."""
    best = {one: max(run["steady"] for run in found) for one, found in runs.items()}
    whole = {one: max((run.get("whole", 0.0) for run in found), default=0.0) for one, found in runs.items()}
    lines = ["| loop | steady images/s | engine is x | whole images/s |", "| --- | ---: | ---: | ---: |"]
    for one, rate in best.items():
        lines.append(f"| {one} | {rate:.0f} | {best['engine'] / rate:.2f} | {whole[one]:.0f} |")
    last = runs["engine"][-1]
    return [*lines, "", f"backend {last['backend']}; writing takes {last['write share']:.2%} of the engine's time"]


if __name__ == "__main__":
    main()
