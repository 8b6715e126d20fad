"""The bundled models draw what held-out prompts say: a sample of what `python -m workers.tiny.evaluate` measures."""

import pytest
import torch

from workers.tiny.adherence import means
from workers.tiny.build import MODELS_DIR
from workers.tiny.drawing import Artist
from workers.tiny.evaluation import Result, draw_and_score, measure_vae
from workers.tiny.pipelines import NAMES
from workers.tiny.prompts import held_out_prompts

PROMPTS = 16


@pytest.fixture(scope="module")
def artist() -> Artist:
    return Artist(MODELS_DIR, NAMES, torch.device("cpu"))


def joint(results: list[Result]) -> float:
    return means(result.score for result in results)["joint"]


@pytest.mark.parametrize(("name", "least"), [("tiny-sd3", 0.8), ("tiny-flux-dev", 0.8), ("tiny-flux-schnell", 0.75)])
def test_one_figure_is_drawn_as_asked(artist: Artist, name: str, least: float) -> None:
    assert joint(draw_and_score(artist, name, held_out_prompts(PROMPTS, figures=1))) >= least


@pytest.mark.parametrize("name", NAMES)
def test_two_figures_are_drawn_as_asked(artist: Artist, name: str) -> None:
    assert joint(draw_and_score(artist, name, held_out_prompts(PROMPTS, figures=2))) >= 0.55


@pytest.mark.parametrize(("name", "few", "many"), [("tiny-sd3", 1, 20), ("tiny-flux-dev", 1, 20)])
def test_one_step_is_worse_than_many(artist: Artist, name: str, few: int, many: int) -> None:
    """Whoever drops or repeats steps in the engine shows it here."""
    prompts = held_out_prompts(8, figures=1)
    after_few = joint(draw_and_score(artist, name, prompts, num_inference_steps=few))
    assert joint(draw_and_score(artist, name, prompts, num_inference_steps=many)) >= after_few + 0.25


def test_guidance_helps_sd3(artist: Artist) -> None:
    """Whoever loses the unconditional row shows it here."""
    prompts = held_out_prompts(PROMPTS, figures=2)
    held = [
        sum(sum(result.score.values()) for result in draw_and_score(artist, "tiny-sd3", prompts, guidance_scale=scale))
        for scale in (1.0, 3.5)
    ]
    assert held[0] < held[1]


def test_the_vae_keeps_what_it_is_shown() -> None:
    from diffusers import AutoencoderKL

    measured = measure_vae(AutoencoderKL.from_pretrained(MODELS_DIR / "tiny-sd3" / "vae"), 24)
    assert measured["psnr_db"] >= 30
    assert measured["adherence"]["joint"] >= 0.95
