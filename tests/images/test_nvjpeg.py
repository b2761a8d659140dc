"""Batches of JPEGs: which images the GPU decoder gets, and that both decoders agree. Here torchvision decodes on the CPU."""

import io

import pytest
import torch
from PIL import Image

from engine.images import nvjpeg
from engine.images.decode import Frame, decode

from .making import encode, jpeg, picture


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(picture(1), "JPEG", exif=exif)


def grey() -> bytes:
    return encode(picture(mode="L"), "JPEG")


@pytest.mark.parametrize(("crop_pct", "mode"), [(1.0, "bilinear"), (0.8, "bicubic")])
def test_images_agree_with_the_cpu_decoder_within_a_level(crop_pct: float, mode: str) -> None:
    images = [jpeg(seed, width=90 + seed, height=70) for seed in range(4)] + [jpeg(9, width=24, height=24)]
    made = nvjpeg.decode_batch(images, Frame(24, crop_pct, mode), "cpu")
    for data, image in zip(images, made, strict=True):
        assert image is not None
        assert (image.shape, image.dtype) == ((3, 24, 24), torch.uint8)
        assert (image.int() - decode(data, Frame(24, crop_pct, mode)).int()).abs().max() <= 1


def test_only_sound_upright_colour_jpegs_are_decoded() -> None:
    sound = jpeg(1, width=90, height=70)
    others = [None, b"", b"\xff\xd8\xff", sound[:-2], sound[: len(sound) // 2], encode(picture()), turned(), grey()]
    others.append(encode(picture(mode="CMYK"), "JPEG"))
    made = nvjpeg.decode_batch([*others, sound], Frame(24), "cpu")
    assert [image is None for image in made] == [True] * len(others) + [False]
    assert nvjpeg.decode_batch(others, Frame(24), "cpu") == [None] * len(others)
    assert nvjpeg.decode_batch([sound], Frame(24), "cpu", max_pixels=100) == [None], "a bomb"


def test_an_image_on_which_it_fails_leaves_the_batch_to_the_cpu() -> None:
    data = bytearray(jpeg(1, width=90, height=70))
    at = data.index(b"\xff\xc4") + 5
    data[at : at + 16] = b"\xff" * 16
    with pytest.raises(OSError, match=r"."):
        Image.open(io.BytesIO(data)).load()
    assert nvjpeg.decode_batch([jpeg(2), bytes(data)], Frame(24), "cpu") == [None, None]
