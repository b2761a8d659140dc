"""One worker's inner loop on a GPU against the bare model on the device and a DataLoader loop; no Ray. Runs on CPUs too, to try it.

python -m tests.benchmarks.predict_gpu --models resnet50 vit_small_patch16_224 --size 224 --images 20000 --backend bf16 --threads 14
"""

import argparse
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow.fs as pafs
import torch

from engine.images.collection import Collection
from engine.images.manifest import Manifest
from engine.images.scope import Scope
from engine.images.sources import list_images
from engine.models.checkpoint import load
from engine.predict.backends import Norm
from engine.predict.bottleneck import bottleneck
from engine.predict.predictor import Predictor
from engine.predict.shard_predictor import ShardPredictor
from engine.settings.data import SourceSettings
from engine.settings.predict import PredictSettings
from tests.benchmarks.predict_material import make_pool, make_teacher
from tests.benchmarks.predict_rivals import Files


def bare(predictor: Predictor, batches: int) -> float:
    """Images a second of uint8 batches that lie on the device already."""
    size, batch = predictor.loaded.img_size, predictor.settings.batch_size
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=predictor.device)
    for _ in range(3):
        predictor.finish(predictor.start(images))
    began = time.perf_counter()
    for _ in range(batches):
        pending = predictor.start(images)
    predictor.finish(pending)
    return batches * batch / (time.perf_counter() - began)


def labelled(predictor: Predictor, manifest: Manifest, threads: int) -> tuple[float, str]:
    """Images a second of the engine's loop from Parquet to predictions, and what bounds it."""
    labeller = ShardPredictor(Scope(Collection("images", manifest)), predictor, threads=threads)
    labeller(0)
    spent: Counter[str] = Counter()
    began, count = time.perf_counter(), 0
    for shard in range(1, manifest.num_shards):
        done = labeller(shard)
        count += done.predictions.num_rows
        spent.update(vars(done.seconds))
    told = bottleneck(spent)
    return count / (time.perf_counter() - began), told.line() if told else ""


def dataloader(predictor: Predictor, files: Path, workers: int) -> float:
    """Images a second of a DataLoader loop with the same precision, channels_last and pinned memory."""
    loaded = predictor.loaded  # untouched: backends work on copies
    loader = torch.utils.data.DataLoader(
        Files(files, loaded.img_size),
        batch_size=predictor.settings.batch_size,
        num_workers=workers,
        pin_memory=predictor.device.type == "cuda",
    )
    half = predictor.backend.name in ("bf16", "fp16")
    dtype = torch.float16 if predictor.backend.name == "fp16" else torch.bfloat16
    model = loaded.model.eval().to(predictor.device).to(memory_format=torch.channels_last)
    began, count = 0.0, 0
    with torch.inference_mode(), torch.autocast(predictor.device.type, dtype, enabled=half):
        for batch in loader:
            pixels = Norm(loaded.mean, loaded.std)(batch.to(predictor.device)).contiguous(
                memory_format=torch.channels_last
            )
            model(pixels).float().softmax(1).topk(8)[0].cpu()
            if not began:
                began = time.perf_counter()  # the workers have started
            else:
                count += len(batch)
    return count / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet50", "vit_small_patch16_224"])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--backend", default="bf16")
    parser.add_argument("--decodes", nargs="+", default=["full", "nvjpeg"])
    parser.add_argument("--threads", type=int, default=14)
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(
        "| model | decode | bare | engine | of bare | DataLoader | engine is x | |\n| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pool, files = make_pool(folder / "pool", arguments.images, "texture")
        listing = list_images(str(pool), SourceSettings(rows_per_shard=2048))
        manifest = Manifest.save(listing, pafs.LocalFileSystem(), str(folder / "list"))
        for model in arguments.models:
            teacher = make_teacher(folder / model, model, arguments.size)
            assert load(teacher).img_size == arguments.size
            rates: dict[str, float] = defaultdict(float)
            told: dict[str, str] = {}
            for _ in range(arguments.repeats):
                for decode in arguments.decodes:
                    settings = PredictSettings(batch_size=arguments.batch, backend=arguments.backend, decode=decode)
                    predictor = Predictor(teacher, settings, device)
                    rates["bare"] = max(rates["bare"], bare(predictor, 50))
                    rate, told[decode] = labelled(predictor, manifest, arguments.threads)
                    rates[decode] = max(rates[decode], rate)
                rates["loader"] = max(rates["loader"], dataloader(predictor, files, arguments.threads))
            for decode in arguments.decodes:
                cells = [decode, f"{rates['bare']:.0f}", f"{rates[decode]:.0f}", f"{rates[decode] / rates['bare']:.0%}"]
                cells += [f"{rates['loader']:.0f}", f"{rates[decode] / rates['loader']:.2f}", told[decode]]
                print(f"| {model} {arguments.backend} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
