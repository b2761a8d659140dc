"""The rivals: plain torch loops without Ray, steps or parts, on the same images and weights."""

import time
from pathlib import Path

import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

from engine.images.decode import Frame, decode
from engine.images.views import View
from engine.models.build import build_model, normalisation
from engine.models.checkpoint import load
from engine.settings.fit import FitSettings, NoiseSettings
from engine.settings.model import ModelSettings


class Encoded(Dataset[torch.Tensor]):
    """Encoded images of Parquet files in memory, decoded one by one: what a DataLoader loop usually stands on."""

    def __init__(self, paths: list[Path], size: int) -> None:
        self.images = [image for path in paths for image in pq.read_table(path, columns=["image"])["image"].to_pylist()]
        self.size = size

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return decode(self.images[index], Frame(self.size))


def predict_rate(paths: list[Path], model_folder: Path, batch_size: int, amp: bool) -> float:
    """Images/s of decode, forward and top-8 over all images, one process, one thread."""
    torch.set_num_threads(1)
    loaded = load(model_folder)
    model = loaded.model.to(memory_format=torch.channels_last)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) * 255 for values in (loaded.mean, loaded.std))
    images = Encoded(paths, loaded.img_size)
    started = time.perf_counter()
    with torch.inference_mode():
        for batch in DataLoader(images, batch_size):
            with torch.autocast("cpu", torch.bfloat16, enabled=amp):
                logits = model(((batch.float() - mean) / std).contiguous(memory_format=torch.channels_last))
            torch.softmax(logits.float(), 1).topk(8)
    return len(images) / (time.perf_counter() - started)


def fit_rate(
    settings: FitSettings, model_settings: ModelSettings, noise: NoiseSettings, steps: int, amp: bool
) -> float:
    """Images/s of the pure training step: view, forward, backward, SGD on one batch that is decoded and in memory; one process, one thread."""
    torch.set_num_threads(1)
    size = sum(settings.batch.values())
    model = build_model(model_settings, 10).train().to(memory_format=torch.channels_last)
    to = normalisation(model_settings, model)
    view = View(noise, model_settings.img_size, to.mean, to.std)
    optimiser = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    images = torch.randint(0, 256, (size, 3, model_settings.img_size, model_settings.img_size), dtype=torch.uint8)
    labels = torch.randint(0, 10, (size,))
    seeds = torch.arange(size).numpy().astype("uint64")
    started = 0.0
    for step in range(steps + WARM_UP):
        if step == WARM_UP:
            started = time.perf_counter()
        pixels, _ = view(images, seeds + step * size)
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            logits = model(pixels.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return steps * size / (time.perf_counter() - started)


WARM_UP = 20
