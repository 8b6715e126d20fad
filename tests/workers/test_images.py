"""Image files, read back with the library that others read them with."""

import io
import json

import pytest
import torch
from PIL import Image

from app.jobs.schema import OutputFormat
from workers.images import encode_image

PARAMETERS: dict[str, object] = {"prompt": "ein großer roter Ring ○", "seed": 2**63 - 1}


def gradient() -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(48), torch.arange(64), indexing="ij")
    return torch.stack([rows * 4, columns * 3, rows + columns], dim=-1).to(torch.uint8)


def test_png_loses_nothing_and_holds_its_parameters() -> None:
    image = Image.open(io.BytesIO(encode_image(gradient(), OutputFormat.PNG, None, PARAMETERS)))
    assert image.format == "PNG"
    assert image.size == (64, 48)
    assert image.tobytes() == gradient().numpy().tobytes()
    assert json.loads(image.info["darkroom"]) == PARAMETERS


@pytest.mark.parametrize("output_format", [OutputFormat.JPEG, OutputFormat.WEBP])
def test_lossy_formats_hold_their_parameters_and_obey_quality(output_format: OutputFormat) -> None:
    fine, coarse = (encode_image(gradient(), output_format, quality, PARAMETERS) for quality in (95, 5))
    image = Image.open(io.BytesIO(fine))
    assert image.format == output_format.upper()
    assert image.size == (64, 48)
    assert json.loads(image.getexif()[0x010E]) == PARAMETERS
    assert len(coarse) < len(fine)


def test_quality_zero_is_a_quality() -> None:
    zero, default = (encode_image(gradient(), OutputFormat.JPEG, quality, {}) for quality in (0, None))
    assert len(zero) < len(default)


def test_a_prompt_too_long_for_a_jpegs_exif_stays_out_and_the_rest_stays_in() -> None:
    data = encode_image(gradient(), OutputFormat.JPEG, None, PARAMETERS | {"prompt": "○" * 20_000})
    kept = json.loads(Image.open(io.BytesIO(data)).getexif()[0x010E])
    assert kept == {"seed": 2**63 - 1}
