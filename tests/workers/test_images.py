"""Image files, read back with the library that others read them with."""

import io
import json

import pytest
import torch
from PIL import Image

from app.jobs.schema import OutputFormat
from workers.images import encode_image

INFOTEXT = "ein großer roter Ring ○\nSteps: 20"
PARAMETERS: dict[str, object] = {"prompt": "ein großer roter Ring ○", "seed": 2**63 - 1}


def gradient() -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(48), torch.arange(64), indexing="ij")
    return torch.stack([rows * 4, columns * 3, rows + columns], dim=-1).to(torch.uint8)


def user_comment(image: Image.Image) -> str:
    """The text of EXIF's user comment, whose first eight bytes name its encoding."""
    comment = image.getexif().get_ifd(0x8769)[0x9286]
    assert comment[:8] == b"UNICODE\0"
    return str(comment[8:], "utf-16-be")


def test_png_loses_nothing_and_holds_its_parameters() -> None:
    image = Image.open(io.BytesIO(encode_image(gradient(), OutputFormat.PNG, None, PARAMETERS, INFOTEXT)))
    assert image.format == "PNG"
    assert image.size == (64, 48)
    assert image.tobytes() == gradient().numpy().tobytes()
    assert json.loads(image.info["darkroom"]) == PARAMETERS
    assert image.info["parameters"] == INFOTEXT


@pytest.mark.parametrize("output_format", [OutputFormat.JPEG, OutputFormat.WEBP])
def test_lossy_formats_hold_their_parameters_and_obey_quality(output_format: OutputFormat) -> None:
    fine, coarse = (encode_image(gradient(), output_format, quality, PARAMETERS, INFOTEXT) for quality in (95, 5))
    image = Image.open(io.BytesIO(fine))
    assert image.format == output_format.upper()
    assert image.size == (64, 48)
    assert json.loads(image.getexif()[0x010E]) == PARAMETERS
    assert user_comment(image) == INFOTEXT
    assert len(coarse) < len(fine)


def test_quality_zero_is_a_quality() -> None:
    zero, default = (encode_image(gradient(), OutputFormat.JPEG, quality, {}, "") for quality in (0, None))
    assert len(zero) < len(default)


@pytest.mark.parametrize("length", [2_000, 300_000])
@pytest.mark.parametrize("output_format", [OutputFormat.PNG, OutputFormat.WEBP])
def test_long_prompts_fit(output_format: OutputFormat, length: int) -> None:
    prompt = "○" * length
    image = Image.open(io.BytesIO(encode_image(gradient(), output_format, None, {"prompt": prompt}, prompt)))
    image.load()
    png = output_format is OutputFormat.PNG
    assert json.loads(image.info["darkroom"] if png else image.getexif()[0x010E]) == {"prompt": prompt}
    assert (image.info["parameters"] if png else user_comment(image)) == prompt


@pytest.mark.parametrize(("parameters_chars", "infotext_chars"), [(20_000, 20_000), (5_000, 16_000), (100_000, 0)])
def test_a_prompt_too_long_for_a_jpegs_exif_stays_out_and_the_rest_stays_in(
    parameters_chars: int, infotext_chars: int
) -> None:
    parameters = PARAMETERS | {"prompt": "○" * parameters_chars}
    data = encode_image(gradient(), OutputFormat.JPEG, None, parameters, "○" * infotext_chars)
    image = Image.open(io.BytesIO(data))
    assert json.loads(image.getexif()[0x010E]) == {"seed": 2**63 - 1}
    assert 0x9286 not in image.getexif().get_ifd(0x8769)
