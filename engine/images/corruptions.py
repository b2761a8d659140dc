"""The fifteen common corruptions (Hendrycks and Dietterich 2019) at five severities, for robustness tests.

Reimplementations, scaled to the side of the image: they rank models, but errors are not comparable with those on the published ImageNet-C files.
Each is a pure function of pixels, severity and generator: float (S, S, 3) in 0..1 to float (S, S, 3), clipped afterwards.
"""

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

Pixels = npt.NDArray[np.floating]
Corruption = Callable[[Pixels, int, np.random.Generator], Pixels]

SEVERITIES = (1, 2, 3, 4, 5)


def gaussian_noise(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    return image + rng.normal(0, (0.04, 0.06, 0.08, 0.10, 0.13)[severity - 1], image.shape).astype(np.float32)


def shot_noise(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    photons = (250, 100, 50, 30, 15)[severity - 1]
    return (rng.poisson(image.clip(0, 1) * photons) / photons).astype(np.float32)


def impulse_noise(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    share = (0.01, 0.03, 0.05, 0.09, 0.15)[severity - 1]
    draw = rng.random(image.shape)
    return np.where(draw < share / 2, 0, np.where(draw > 1 - share / 2, 1, image)).astype(np.float32)


def defocus_blur(image: Pixels, severity: int, _: np.random.Generator) -> Pixels:
    radius = max(0.5 + 0.15 * severity, _scaled(image, (0.012, 0.018, 0.025, 0.035, 0.045)[severity - 1]))
    return _filtered(image, _disc(radius))


def glass_blur(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Random local displacement of pixels, then a slight blur."""
    reach = max(1.0, _scaled(image, (0.006, 0.01, 0.014, 0.02, 0.028)[severity - 1]))
    return _smoothed(_warped(image, rng.uniform(-reach, reach, (2, *image.shape[:2]))), 0.4 + 0.1 * severity)


def motion_blur(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    length = max(1.5, _scaled(image, (0.03, 0.05, 0.07, 0.10, 0.14)[severity - 1]))
    size = int(np.ceil(length)) | 1
    angle = rng.uniform(0, np.pi)
    kernel = np.zeros((size, size))
    for along in np.linspace(-length / 2, length / 2, 4 * size):
        y, x = (round(size // 2 + along * turn) for turn in (np.sin(angle), np.cos(angle)))
        if 0 <= y < size and 0 <= x < size:
            kernel[y, x] += 1
    return _filtered(image, kernel / kernel.sum())


def zoom_blur(image: Pixels, severity: int, _: np.random.Generator) -> Pixels:
    """The mean of the image at increasing zooms."""
    most = (0.06, 0.11, 0.16, 0.21, 0.26)[severity - 1]
    side = np.arange(image.shape[0]) - (image.shape[0] - 1) / 2
    zooms = np.linspace(0, most, 8)
    frames = [_warped(image, np.stack(np.meshgrid(side, side, indexing="ij")) * (1 / (1 + zoom) - 1)) for zoom in zooms]
    return np.mean(frames, axis=0, dtype=np.float32)


def snow(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Bright flakes with slanting tails over a paler image."""
    share, pale = ((0.01, 0.15), (0.02, 0.2), (0.035, 0.25), (0.05, 0.3), (0.07, 0.35))[severity - 1]
    flakes = (rng.random(image.shape[:2]) < share).astype(np.float32)
    streak = (
        np.eye(max(1, round(_scaled(image, 0.06))))
        if rng.random() < 0.5
        else np.ones((max(1, round(_scaled(image, 0.06))), 1))
    )
    layer = ndimage.convolve(flakes, streak, mode="reflect").clip(0, 1)[..., None]
    grey = image.mean(axis=2, keepdims=True)
    return (1 - pale) * image + pale * np.maximum(image, grey * 1.5 + 0.3) + 0.7 * layer


def frost(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Ice crystals: ridged turbulence, brightest at the ridges, over a darkened image."""
    strength, dim = ((0.35, 0.95), (0.5, 0.9), (0.6, 0.8), (0.7, 0.75), (0.8, 0.7))[severity - 1]
    ridges = (1 - np.abs(2 * _turbulence(image.shape[0], rng, 1.0) - 1)) ** 3
    return dim * image + strength * ridges[..., None] * np.array([0.85, 0.95, 1.0])


def fog(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    strength, roughness = ((0.6, 2.0), (0.8, 2.0), (1.0, 1.7), (1.2, 1.5), (1.5, 1.4))[severity - 1]
    mist = strength * _turbulence(image.shape[0], rng, roughness)[..., None]
    return (image + mist) / (1 + strength)


def brightness(image: Pixels, severity: int, _: np.random.Generator) -> Pixels:
    return image + (0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1]


def contrast(image: Pixels, severity: int, _: np.random.Generator) -> Pixels:
    mean = image.mean(axis=(0, 1), keepdims=True)
    return (image - mean) * (0.6, 0.45, 0.3, 0.2, 0.12)[severity - 1] + mean


def elastic_transform(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """A smooth random displacement field."""
    reach = _scaled(image, (0.02, 0.03, 0.045, 0.06, 0.08)[severity - 1])
    field = ndimage.gaussian_filter(rng.uniform(-1, 1, (2, *image.shape[:2])), (0, *[_scaled(image, 0.05)] * 2))
    return _warped(image, field * reach / max(1e-9, float(np.abs(field).max())))


def pixelate(image: Pixels, severity: int, _: np.random.Generator) -> Pixels:
    side = image.shape[0]
    small = max(2, round(side * (0.7, 0.55, 0.45, 0.35, 0.25)[severity - 1]))
    picture = Image.fromarray(_bytes(image)).resize((small, small), Image.Resampling.BOX)
    return np.asarray(picture.resize((side, side), Image.Resampling.NEAREST), np.float32) / 255


def jpeg_compression(image: Pixels, severity: int, _: np.random.Generator) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(_bytes(image)).save(buffer, "JPEG", quality=(25, 18, 15, 10, 7)[severity - 1])
    return np.asarray(Image.open(buffer), np.float32) / 255


FAMILIES: dict[str, Corruption] = {
    one.__name__: one
    for one in (
        gaussian_noise,
        shot_noise,
        impulse_noise,
        defocus_blur,
        glass_blur,
        motion_blur,
        zoom_blur,
        snow,
        frost,
        fog,
        brightness,
        contrast,
        elastic_transform,
        pixelate,
        jpeg_compression,
    )
}
"""Corruptions by name."""


def corrupt(image: npt.NDArray[np.uint8], family: str, severity: int, seed: bytes) -> npt.NDArray[np.uint8]:
    """Corrupted uint8 (S, S, 3). Random numbers depend only on `seed` (the image) and the family: the same on every worker and at every severity."""
    rng = np.random.default_rng([*seed, *family.encode()])
    pixels = image.astype(np.float32) / 255
    return _bytes(np.asarray(FAMILIES[family](pixels, severity, rng), np.float32))


def _bytes(image: Pixels) -> npt.NDArray[np.uint8]:
    return (image.clip(0, 1) * 255).round().astype(np.uint8)


def _scaled(image: Pixels, share: float) -> float:
    """A share of the side of the image, in pixels."""
    return share * image.shape[0]


def _disc(radius: float) -> npt.NDArray[np.float64]:
    """A disc kernel; pixels at the rim are weighted by their covered area."""
    reach = int(np.ceil(radius + 0.5))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel = (radius + 0.5 - np.hypot(x, y)).clip(0, 1)
    return kernel / kernel.sum()


def _filtered(image: Pixels, kernel: npt.NDArray[np.float64]) -> Pixels:
    return ndimage.convolve(image, kernel[..., None], mode="reflect")


def _smoothed(image: Pixels, sigma: float) -> Pixels:
    return ndimage.gaussian_filter(image, (sigma, sigma, 0), mode="reflect")


def _warped(image: Pixels, shift: npt.NDArray[np.floating]) -> Pixels:
    """The image sampled at the position of each pixel plus `shift` (2, S, S)."""
    at = np.indices(image.shape[:2]) + shift
    channels = [ndimage.map_coordinates(image[..., c], at, order=1, mode="reflect") for c in range(3)]
    return np.stack(channels, axis=2).astype(np.float32)


def _turbulence(side: int, rng: np.random.Generator, roughness: float) -> npt.NDArray[np.float64]:
    """Noise of all scales, (side, side) in 0..1: amplitudes fall with frequency to the power `roughness`."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    frequency[0, 0] = np.inf
    field = np.real(np.fft.ifft2(np.fft.fft2(rng.normal(size=(side, side))) / frequency**roughness))
    low, high = field.min(), field.max()
    return (field - low) / max(1e-12, high - low)
