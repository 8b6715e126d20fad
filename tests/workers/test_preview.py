"""Previews: what the VAE would decode, an eighth as wide, without the VAE; and the maps they are made with."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn.functional import avg_pool2d

from app.catalog.catalog import Catalog
from tests.workers.requests import make_spec
from tests.workers.steps import draw_latents
from workers.engine.pipeline import StepPipeline
from workers.pipelines.latent_rgb import FILE_NAME, FLUX, SD3, LatentRGB
from workers.pipelines.load import ModelLoadError, find_folder, load_pipeline
from workers.tiny.latent_rgb import fit_latent_rgb
from workers.tiny.pipelines import NAMES
from workers.tiny.scenes import COLOURS

CPU = torch.device("cpu")
HEIGHT, WIDTH = 128, 96  # unlike, so that a transposed preview is seen
BACKGROUNDS = {"red": "white", "teal": "pink", "yellow": "blue", "black": "orange"}  # and the figure's colour


@pytest.fixture(scope="module")
def drawn(pipelines: Mapping[str, StepPipeline]) -> dict[tuple[str, str], Tensor]:
    """Finished latents, by model and background."""
    return {
        (model, colour): draw_latents(
            pipelines[model],
            make_spec(
                model=model,
                prompt=f"a large {figure} square in the centre on a plain {colour} background",
                height=HEIGHT,
                width=WIDTH,
                num_inference_steps=8,
                max_sequence_length=128,
            ),
        )
        for model in NAMES
        for colour, figure in BACKGROUNDS.items()
    }


def preview(pipeline: StepPipeline, latents: Tensor) -> Tensor:
    shown = pipeline.preview(latents, HEIGHT, WIDTH)
    assert shown is not None
    return shown


def decoded_small(pipeline: StepPipeline, latents: Tensor) -> Tensor:
    """(h, w, 3) float, 0 to 255: each pixel the mean of 8 x 8 of the decoded picture."""
    with torch.inference_mode():
        pixels = pipeline.decode(latents, HEIGHT, WIDTH)
    return avg_pool2d(pixels.permute(0, 3, 1, 2).float(), 8)[0].permute(1, 2, 0)


@pytest.mark.parametrize("model", NAMES)
def test_a_preview_is_the_decoded_picture_made_small(
    pipelines: Mapping[str, StepPipeline], drawn: Mapping[tuple[str, str], Tensor], model: str
) -> None:
    errors, misread = [], []
    for colour in BACKGROUNDS:
        shown = preview(pipelines[model], drawn[model, colour])
        assert (shown.shape, shown.dtype) == ((1, HEIGHT // 8, WIDTH // 8, 3), torch.uint8)
        small = decoded_small(pipelines[model], drawn[model, colour])
        errors.append(float((shown[0] - small).abs().mean()))
        misread.append(float((shown[0].flip(-1) - small).abs().mean()))
        correlation = torch.corrcoef(torch.stack([shown[0].float().flatten(), small.flatten()]))[0, 1]
        assert correlation > 0.85, colour
    assert sum(errors) / len(errors) < 30
    assert sum(misread) / len(misread) > 60, "this bound would not see blue taken for red"


@pytest.mark.parametrize("colour", BACKGROUNDS)
@pytest.mark.parametrize("model", NAMES)
def test_its_background_can_be_named(
    pipelines: Mapping[str, StepPipeline], drawn: Mapping[tuple[str, str], Tensor], model: str, colour: str
) -> None:
    shown = preview(pipelines[model], drawn[model, colour])[0].float()
    rim = torch.cat([shown[0], shown[-1], shown[:, 0], shown[:, -1]]).median(dim=0).values
    assert min(COLOURS, key=lambda name: float((rim - torch.tensor(COLOURS[name])).abs().sum())) == colour


@pytest.mark.parametrize("model", NAMES)
def test_previews_of_a_batch_are_the_rows_own(
    pipelines: Mapping[str, StepPipeline], drawn: Mapping[tuple[str, str], Tensor], model: str
) -> None:
    rows = [drawn[model, colour] for colour in BACKGROUNDS]
    alone = [preview(pipelines[model], row) for row in rows]
    assert torch.equal(preview(pipelines[model], torch.cat(rows)), torch.cat(alone))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_latents_are_shown(
    pipelines: Mapping[str, StepPipeline], drawn: Mapping[tuple[str, str], Tensor], dtype: torch.dtype
) -> None:
    latents = drawn["tiny-sd3", "red"]
    shown, rounded = (preview(pipelines["tiny-sd3"], some).int() for some in (latents, latents.to(dtype)))
    assert (shown - rounded).abs().max() <= 3


def test_the_bundled_map_is_the_one_that_fits() -> None:
    """Whoever changes the VAE, which all three share, must fit it again: python -m workers.tiny.latent_rgb"""
    folders = [find_folder(Catalog.load()[name]) / "vae" for name in NAMES]
    (shipped,) = {LatentRGB.model_validate_json((folder / FILE_NAME).read_bytes()) for folder in folders}
    fitted = fit_latent_rgb(AutoencoderKL.from_pretrained(folders[0]))
    assert torch.allclose(torch.tensor(shipped.factors), torch.tensor(fitted.factors), atol=2e-3)
    assert torch.allclose(torch.tensor(shipped.bias), torch.tensor(fitted.bias), atol=2e-3)


def test_a_map_is_applied_channel_by_channel() -> None:
    """Two channels with known colours: one is red, the other takes blue away from a grey ground."""
    latent_rgb = LatentRGB(factors=((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)), bias=(0.0, 0.0, 0.0))
    latents = torch.zeros(1, 2, 2, 3)
    latents[0, 0, 0, 2] = 1.0
    latents[0, 1, 1, 0] = 5.0
    shown = latent_rgb.show(latents)[0]
    assert shown[0, 2].tolist() == [255, 128, 128]
    assert shown[1, 0].tolist() == [128, 128, 0]
    assert shown[0, 0].tolist() == [128, 128, 128]


@pytest.mark.parametrize("published", [FLUX, SD3], ids=["flux", "sd3"])
def test_published_maps_are_of_16_channels_and_take_noise_for_grey(published: LatentRGB) -> None:
    assert len(published.factors) == 16
    shown = published.show(torch.randn(1, 16, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert (shown.float().mean(dim=(0, 1, 2)) - 128).abs().max() < 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(find_folder(Catalog.load()["tiny-sd3"]), tmp_path / "model"))


def load(folder: Path) -> StepPipeline:
    return load_pipeline(Catalog.load()["tiny-sd3"], folder, CPU, torch.float32)


def test_without_a_map_there_is_no_preview(folder: Path, drawn: Mapping[tuple[str, str], Tensor]) -> None:
    """The published maps are of other channels."""
    (folder / "vae" / FILE_NAME).unlink()
    assert load(folder).preview(drawn["tiny-sd3", "red"], HEIGHT, WIDTH) is None


def test_a_vae_of_16_channels_has_the_published_map(folder: Path) -> None:
    (folder / "vae" / FILE_NAME).unlink()
    vae = AutoencoderKL(latent_channels=16, scaling_factor=1.5305, shift_factor=0.0609)
    vae.save_pretrained(folder / "vae")
    latents = torch.randn(1, 16, 4, 4)
    shown = load(folder).preview(latents, 32, 32)
    assert shown is not None
    assert torch.equal(shown, SD3.show(latents))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        pytest.param({"factors": [[0, 0, 0]] * 7}, "7 channels, and the VAE has 8", id="a channel too few"),
        pytest.param({"factors": [[0, 0]] * 8}, r"factors\.0\.2\s+Field required", id="a colour too few"),
        pytest.param({"bias": [0, 0, 0, 0]}, "bias", id="a colour too many"),
        pytest.param({"bias": [0, 0, float("inf")]}, r"bias\.2\s+Input should be a finite number", id="infinite"),
        pytest.param({"gamma": 2.2}, "gamma", id="unknown"),
    ],
)
def test_a_map_that_is_none_is_refused(folder: Path, change: dict[str, object], complaint: str) -> None:
    file = folder / "vae" / FILE_NAME
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ModelLoadError, match=rf"(?s)tiny-sd3: .*latent_rgb\.json .*{complaint}"):
        load(folder)
