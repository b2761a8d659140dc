"""A model folder as probabilities of pixels, for maps of scenes."""

import hashlib
from pathlib import Path

import numpy as np
import torch

from engine.geo.bands import Pixels
from engine.geo.map_scene import Classify, Probabilities
from engine.geo.mapping import PixelModel
from engine.models.checkpoint import CONFIG, WEIGHTS, describe
from engine.predict.predictor import Predictor
from engine.settings.geo import MapJobSettings
from engine.settings.predict import PredictSettings


def pixel_model(settings: MapJobSettings) -> PixelModel:
    """The network of `settings.model` on this machine's GPU or CPU.

    Raises ValueError for a folder that cannot be loaded, and for a network that has classes of whole images.
    """
    folder = Path(settings.model).expanduser()
    described = describe(folder)
    if described.settings.decoder is None:
        raise ValueError(
            f"{folder}: {described.settings.model} has classes of whole images, and a map needs those of pixels: fit it with"
            " task=segment and decoder=unet."
        )
    if len(described.class_names) > 255:
        raise ValueError(f"{folder}: {len(described.class_names)} classes, and a map has at most 255.")
    wanted = PredictSettings(
        batch_size=settings.batch_size,
        backend=settings.backend,
        views=settings.views,
        temperature=settings.temperature,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    predictor = Predictor(folder, wanted, device)
    digest = hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        digest.update((folder / name).read_bytes())
    return PixelModel(
        pixel_probabilities(predictor), described.class_names, predictor.loaded.img_size, digest.hexdigest()
    )


def pixel_probabilities(predictor: Predictor) -> Classify:
    """Probabilities float32 (n, C, S, S) of windows uint8 (n, S, S, 3), a mean over the views."""

    def classify(windows: Pixels) -> Probabilities:
        images = torch.from_numpy(np.ascontiguousarray(windows)).permute(0, 3, 1, 2)
        with torch.inference_mode():
            views = predictor.logits(images)
            views = [views[0], *(view.flip(3) for view in views[1:])]
            scores = [torch.softmax(logits / predictor.settings.temperature, dim=1) for logits in views]
            found: Probabilities = torch.stack(scores).mean(dim=0).cpu().numpy()
        return found

    return classify
