"""PNG files of our own, read back with the library that others read them with."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from workers.png import encode_png

SIZES = ((1, 1), (3, 5), (64, 96), (1024, 1024))


def noise(width: int, height: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def gradient(width: int, height: int) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows, columns, rows + columns], axis=-1).astype(np.uint8)


def decode(data: bytes) -> Image.Image:
    Image.open(io.BytesIO(data)).verify()  # the checksums
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("draw", [noise, gradient])
def test_every_pixel_comes_back(draw: Callable[[int, int], NDArray[np.uint8]], size: tuple[int, int]) -> None:
    pixels = draw(*size)
    image = decode(encode_png(pixels, {}))
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", size)
    assert image.tobytes() == pixels.tobytes()


def test_pixels_need_not_lie_in_a_row() -> None:
    pixels = noise(64, 96)[::2, ::-1]
    assert decode(encode_png(pixels, {})).tobytes() == pixels.tobytes()


def test_a_smooth_picture_is_small() -> None:
    pixels = gradient(256, 256)
    assert len(encode_png(pixels, {})) < pixels.nbytes / 50


def test_texts_come_back_in_any_script_and_at_any_length() -> None:
    texts = {"darkroom": '{"prompt": "ein großer Ring ○"}', "parameters": "○" * 300_000, "empty": ""}
    assert decode(encode_png(noise(3, 5), texts)).info == texts
