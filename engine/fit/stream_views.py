"""The views that an objective takes of its streams: which crop, which noise, drawn from which seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from engine.fit.batch import Batch
from engine.fit.objective import Context
from engine.images.counter_rng import view_seeds
from engine.images.crops import RandomCrop
from engine.images.views import View
from engine.models.build import normalisation, train_frame
from engine.settings.fit import NoiseSettings

WEAK = NoiseSettings()
"""The noise of a stream for which `fit.noise` has none: mirrored half of the time."""


@dataclass(frozen=True)
class Drawn:
    """One view of a stream's images. `seeds`: number of the view's own random numbers; 0 are those of the image itself."""

    noise: NoiseSettings
    seeds: int = 0


class StreamViews:
    """Views for `model` of every stream, in order. Crops are taken by the stream when it decodes, the rest on the device."""

    def __init__(self, context: Context, model: nn.Module, drawn: Mapping[str, Sequence[Drawn]]) -> None:
        norm, size = normalisation(context.model, model), context.model.img_size
        self._drawn = {name: tuple(views) for name, views in drawn.items()}
        self._views = {
            name: [
                View(one.noise.model_copy(update={"scale": None}), size, norm.mean, norm.std)
                for one in self._drawn[name]
            ]
            for name in self._drawn
        }
        self._frame, self._device = train_frame(context.model), context.device

    def __call__(self, name: str, batch: Batch, number: int = 0) -> Tensor:
        """View `number` of a batch of the stream `name`: normalised float32 (b, 3, S, S)."""
        return self.view(name, number)(batch.pictures(number), self._seeds(name, batch, number))[0]

    def chained(self, name: str, batch: Batch, first: int, second: int) -> Tensor:
        """View `second` of what view `first` shows, instead of the image: normalised float32 (b, 3, S, S)."""
        pixels, _ = self.view(name, first).pixels(batch.pictures(first), self._seeds(name, batch, first))
        return self.view(name, second)(pixels, self._seeds(name, batch, second))[0]

    def _seeds(self, name: str, batch: Batch, number: int = 0) -> npt.NDArray[np.uint64]:
        seeds = self._drawn[name][number].seeds
        return view_seeds(batch.seeds, seeds) if seeds else batch.seeds

    def masked(self, name: str, batch: Batch) -> tuple[Tensor, Tensor]:
        """The first view of a batch and its mask in the same geometry, uint8 (b, S, S). Raises ValueError for a stream without masks."""
        if batch.mask is None:
            raise ValueError(f"stream {name!r} has no masks: set data.masks and task=segment")
        images, mask = self.view(name)(batch.pictures(0), self._seeds(name, batch), batch.mask)
        assert mask is not None, "a view keeps the mask"
        return images, mask[:, 0]

    def joined(self, batches: Mapping[str, Batch]) -> tuple[Tensor, npt.NDArray[np.uint64]]:
        """The first views of all batches, one after the other, normalised float32 (B, 3, S, S), and seeds uint64 (B,) for later draws."""
        pictures = torch.cat([self(name, batch.to(self._device)) for name, batch in batches.items()])
        return pictures, view_seeds(np.concatenate([batch.seeds for batch in batches.values()]), 1)

    def view(self, name: str, number: int = 0) -> View:
        """What view `number` of the stream `name` does after its crop."""
        return self._views[name][number]

    def crops(self, name: str) -> tuple[RandomCrop, ...]:
        """A crop per view of the stream `name`; none where no view crops at random, since one square then serves all."""
        drawn = self._drawn.get(name, ())
        if all(one.noise.scale is None for one in drawn):
            return ()
        return tuple(RandomCrop.of(one.noise, self._frame, one.seeds) for one in drawn)


def one_view_each(context: Context, usual: NoiseSettings = WEAK) -> dict[str, tuple[Drawn, ...]]:
    """One view per stream of the batch: the noise that the settings name, else `usual`."""
    settings = context.settings
    return {name: (Drawn(settings.noise.get(name, usual)),) for name in settings.batch}
