"""The start of a labelling step, on a worker and not on the driver: which backend, how large a batch, what decoding otherwise changes."""

import time
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import pyarrow as pa
import torch

from engine.ground import allocator
from engine.ground.progress import log_event
from engine.ground.steps import Step
from engine.images import nvjpeg
from engine.images.decode import decode
from engine.images.errors import RejectedImageError
from engine.images.file_listing import without_credentials
from engine.images.scope import Scope
from engine.models.checkpoint import Loaded, load
from engine.models.fetch import fetch_model
from engine.predict import int8
from engine.predict.backend_choice import agreement, allowed_backends, choose_backend, in_batches
from engine.predict.backends import BACKENDS, Norm, Quantised, UnavailableError, build
from engine.predict.job import PredictJob
from engine.settings.predict import PredictSettings

SHARDS_LOOKED_AT = 8
FEW_IMAGES = 4096
"""Images up to which a step is not worth the seconds of a measurement and of starting a pool of actors: such steps run as plain tasks."""
CALIBRATED_ON, COMPARED_ON = 256, 512
"""Images that set the ranges of int8, and images on which what changes answers is compared; others than those, where the pool has them."""


@allocator.keeping_freed()
def make_plan(job: PredictJob, workers: int) -> dict[str, Any]:
    """The measured plan of a step that `workers` share, obeyed by every worker and every resume."""
    step, scope, settings = job.step, job.scope, job.settings
    torch.set_num_threads(job.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = load(fetch_model(job.model, step.fs))
    batch = batch_size(scope, settings)
    allowed = allowed_backends(settings.backend, scope.num_images // max(1, workers))
    if settings.decode == "nvjpeg" and device == "cpu":
        raise ValueError("predict.decode=nvjpeg needs a GPU, and this worker has none: use predict.decode=full")
    changes = settings.decode != "full" or any(BACKENDS[name].changes_answers for name in allowed)
    images = sample(scope, CALIBRATED_ON + COMPARED_ON if changes else batch)
    plan = unmeasured_plan(job) | {"device": torch.cuda.get_device_name() if device == "cuda" else "cpu"}
    pixels = decode_sample(images, loaded, scaled=False)
    if len(pixels) == 0:
        return plan
    first, others = pixels[:CALIBRATED_ON], pixels[CALIBRATED_ON:] if len(pixels) > CALIBRATED_ON else pixels
    norm = Norm(loaded.mean, loaded.std)
    quantised = quantise_and_save(step, loaded, norm(first.to(device)), batch) if "int8" in allowed else None
    choice = choose_backend(loaded.model, others.to(device), allowed, batch, quantised, norm)
    plan |= {
        "predict": {"batch_size": batch, "backend": choice.name},
        "backend": choice.record(),
        "said": [choice.line()],
    }
    if settings.decode != "full":
        agreed = decoding_agreement(
            settings.decode, images[-COMPARED_ON:], PlannedNetwork(loaded, choice.name, batch, device, quantised)
        )
        plan[settings.decode] = agreed
        plan["said"].append(
            f"{settings.decode} decoding: {agreed['rate']:.0f} images/s, full decoding {agreed['full']:.0f} on a core; pixels differ by "
            f"{agreed['pixels']:.2f} levels on average, top-1 agrees for {agreed['top1']:.2%} of {agreed['images']}"
        )
    return plan


def is_worth_measuring(job: PredictJob) -> bool:
    """Whether a step's backend is measured: not for few images, unless something must be prepared or compared for it."""
    scope, settings = job.scope, job.settings
    if not job.answers.is_measured:
        return False
    return scope.num_images > FEW_IMAGES or settings.decode != "full" or settings.backend == "int8"


def unmeasured_plan(job: PredictJob) -> dict[str, Any]:
    """The plan where nothing is measured: the simplest backend that the settings allow."""
    scope, settings = job.scope, job.settings
    simplest = "channels_last" if settings.backend == "auto" else settings.backend
    return {
        "shards": len(scope.shards),
        "images": scope.num_images,
        "model": job.model.step,
        "manifest": scope.manifest.folder.rsplit("/", 1)[-1],
        "collection": without_credentials(scope.uri),
        "predict": {"batch_size": batch_size(scope, settings), "backend": simplest},
    }


def batch_size(scope: Scope, settings: PredictSettings) -> int:
    """Images of a batch: no more than the largest shard has."""
    return min(settings.batch_size, int(scope.manifest.rows.max(initial=1)))


def sample(scope: Scope, count: int) -> list[pa.Buffer | None]:
    """About the first `count` encoded images, from as few shards as hold them."""
    found: list[pa.Buffer | None] = []
    for shard in scope.shards[:SHARDS_LOOKED_AT].tolist():
        for batch in scope.read(shard, count):
            found += [image.as_buffer() for image in batch["image"]]
            if len(found) >= count:
                return found[:count]
    return found


def decode_sample(images: list[pa.Buffer | None], loaded: Loaded, scaled: bool) -> torch.Tensor:
    """uint8 (n, 3, S, S) of those that can be used, channels last in memory as a worker has them."""
    kept: list[torch.Tensor] = []
    for data in images:
        try:
            kept.append(decode(data, loaded.frame, scaled))
        except RejectedImageError:
            continue
    if not kept:
        return torch.empty((0, 3, loaded.img_size, loaded.img_size), dtype=torch.uint8)
    return torch.stack(kept).contiguous(memory_format=torch.channels_last)


def quantise_and_save(step: Step, loaded: Loaded, pixels: torch.Tensor, batch: int) -> Quantised:
    """The teacher in int8 for normalised `pixels`, kept in the step's folder. Raises ValueError where it cannot be made."""
    try:
        quantised = int8.quantise(loaded.model, pixels, batch)
    except UnavailableError as error:
        raise ValueError(f"predict.backend=int8 cannot be used here: {error}; use predict.backend=auto") from error
    int8.save_quantised(step, quantised)
    return quantised


@dataclass(frozen=True)
class PlannedNetwork:
    """A model as the plan will have it run."""

    loaded: Loaded
    backend: str
    batch: int
    device: str
    quantised: Quantised | None = None


def decoding_agreement(
    decoding: Literal["scaled", "nvjpeg"], images: list[pa.Buffer | None], network: PlannedNetwork
) -> dict[str, float]:
    """How a decoding compares with the full one on these images: images/s of both, mean |pixel difference| in levels, logits, top-1."""
    loaded, batch, device = network.loaded, network.batch, network.device
    usable = [data for data in images if len(decode_sample([data], loaded, scaled=False))]
    if decoding == "nvjpeg":
        on_device(usable[:1], loaded, batch, device)  # the first call loads the library
    started = time.perf_counter()
    full = decode_sample(usable, loaded, scaled=False)
    between = time.perf_counter()
    if decoding == "scaled":
        other = decode_sample(usable, loaded, scaled=True)
    else:
        made = on_device(usable, loaded, batch, device)
        other = torch.stack([one if there is None else there.cpu() for one, there in zip(full, made, strict=True)])
    ended = time.perf_counter()
    shape = (batch, 3, loaded.img_size, loaded.img_size)
    norm = Norm(loaded.mean, loaded.std)
    forward = build(network.backend, loaded.model, shape, torch.device(device), network.quantised, norm)
    logits = [in_batches(forward, pixels.to(device), batch) for pixels in (full, other)]
    agreed = agreement(logits[1], logits[0])
    return {
        "rate": len(usable) / (ended - between),
        "full": len(usable) / (between - started),
        "pixels": float((full.float() - other.float()).abs().mean()),
        "logits": agreed.logits,
        "top1": agreed.top1,
        "images": agreed.images,
    }


def on_device(images: list[pa.Buffer | None], loaded: Loaded, batch: int, device: str) -> list[torch.Tensor | None]:
    """uint8 (3, S, S) on the device of those that nvJPEG takes, None of the others."""
    return [
        one
        for first in range(0, len(images), batch)
        for one in nvjpeg.decode_batch(images[first : first + batch], loaded.frame, torch.device(device))
    ]


def log_plan(label: str, plan: dict[str, Any]) -> None:
    """Say what the plan's measurement found."""
    for line in islice(plan.get("said", []), 5):
        log_event(label, line)
