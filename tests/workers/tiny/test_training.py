"""The recipe of the bundled models, with a budget of a few steps: every stage runs, resumes, and repeats."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from workers.tiny import components
from workers.tiny.build import build_model
from workers.tiny.captions import describe, write_captions
from workers.tiny.card import read_curve
from workers.tiny.drawing import Artist
from workers.tiny.facts import NOTHING
from workers.tiny.pipelines import NAMES
from workers.tiny.training.conditions import flux_condition, sd3_condition
from workers.tiny.training.flow import LATE, add_noise, draw_times
from workers.tiny.training.loop import Draw, Stage, train
from workers.tiny.training.recipe import Budget, Recipe
from workers.tiny.training.text import CLASSES, Tokenizers, classes_of

CPU = torch.device("cpu")
SMOKE = Budget(
    vae=2,
    text=2,
    sd3=3,
    flux=2,
    flux_dev=2,
    flux_schnell=2,
    scenes=dict.fromkeys(LATE, 6),
    pairs={(64, 64): 4, (96, 64): 4},
)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    recipe = Recipe(tmp_path_factory.mktemp("run"), CPU, SMOKE)
    assert recipe.sd3 is not None
    assert recipe.flux_schnell is not None
    return recipe


def test_the_whole_recipe_makes_models_that_draw(recipe: Recipe, tmp_path: Path) -> None:
    for name in NAMES:
        build_model(name, recipe, tmp_path / name)
    artist = Artist(tmp_path, NAMES, CPU)
    specs = [artist.spec(name, "a red circle", 0, num_inference_steps=1, width=64, height=64) for name in NAMES]
    assert [picture.shape for picture in artist.draw(specs)] == [(64, 64, 3)] * 3


def test_a_finished_run_is_read_and_not_trained_again(recipe: Recipe) -> None:
    again = Recipe(recipe.folder, CPU, SMOKE)
    before = {path: path.stat().st_mtime_ns for path in recipe.folder.iterdir()}
    for ours, theirs in zip(recipe.flux_schnell.parameters(), again.flux_schnell.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert {path: path.stat().st_mtime_ns for path in recipe.folder.iterdir()} == before


def test_the_latents_are_of_zero_mean_and_unit_variance(recipe: Recipe) -> None:
    values = torch.cat([data.latents.flatten() for data in recipe.latents.values()])
    assert values.mean().abs() < 1e-3
    assert values.std() == pytest.approx(1, abs=1e-2)


def test_training_features_are_those_of_the_stock_pipelines(recipe: Recipe, tmp_path: Path) -> None:
    """Or the transformers would be served something else than they learnt from."""
    artist_folder = tmp_path / "tiny-sd3"
    build_model("tiny-sd3", recipe, artist_folder)
    from diffusers import StableDiffusion3Pipeline

    stock = StableDiffusion3Pipeline.from_pretrained(artist_folder)
    prompt = "a small red ring on the left"
    embeds, _, pooled, _ = stock.encode_prompt(prompt, None, None, max_sequence_length=40)
    condition = sd3_condition(recipe.encoders, recipe.tokenizers, [prompt], 40)
    torch.testing.assert_close(condition.context, embeds, atol=2e-2, rtol=0)  # half precision lies between
    torch.testing.assert_close(condition.pooled, pooled, atol=2e-2, rtol=0)
    flux = flux_condition(recipe.encoders, recipe.tokenizers, [prompt], 40)
    assert torch.equal(flux.context, condition.context[:, 77:])


def small_stage(steps: int) -> Stage:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))

    def loss(draw: Draw) -> torch.Tensor:
        inputs = torch.randn(16, 4, generator=draw.generator)
        error: torch.Tensor = module(inputs)[:, 0] - inputs.sum(1)
        return error.square().mean()

    return Stage("small", module, loss, steps, matrix_rate=1e-2)


def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.tiny.training.loop.SAVE_EVERY", 10)
    whole = small_stage(60)
    train(whole, tmp_path / "whole")

    cut = small_stage(60)
    fail_at = 37

    def failing(draw: Draw) -> torch.Tensor:
        if draw.step == fail_at:
            raise KeyboardInterrupt
        return cut.loss(draw)

    with pytest.raises(KeyboardInterrupt):
        train(replace(cut, loss=failing), tmp_path / "cut")
    resumed = small_stage(60)
    train(resumed, tmp_path / "cut")
    for ours, theirs in zip(whole.module.parameters(), resumed.module.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert [step for step, _, _ in read_curve(tmp_path / "cut" / "small.csv")] == [10, 20, 30, 40, 50, 60]
    losses = [loss for _, loss, _ in read_curve(tmp_path / "whole" / "small.csv")]
    assert losses[-1] < losses[0] / 2


def test_times_cover_the_line_and_noise_is_mixed_in_by_them() -> None:
    draw = Draw("test", 0)
    times = draw_times(4000, draw.generator)
    assert 0 < times.min() < 0.05
    assert 0.95 < times.max() < 1
    pictures = torch.ones(64, 16, 8, 8)
    noisy, times, noise = add_noise(pictures, draw)
    i = int(times.argmin())
    torch.testing.assert_close(noisy[i], pictures[i] + times[i] * (noise[i] - pictures[i]))


def test_facts_become_classes() -> None:
    assert classes_of(NOTHING) == [0] * len(CLASSES)
    rng = random.Random(0)
    seen = [classes_of(describe(rng)[1]) for _ in range(3000)]
    for column, count in zip(zip(*seen, strict=True), CLASSES, strict=True):
        assert set(column) <= set(range(count))
        assert len(set(column)) >= count - 1  # a first figure is always stated


def test_tokenizers_are_those_of_the_bundled_models() -> None:
    tokenizers = Tokenizers.learn(list(write_captions(seed=0, count=6000)))
    ids = tokenizers.t5("a small red ring").input_ids
    assert tokenizers.t5.convert_ids_to_tokens(ids)[-1] == "</s>"
    assert components.vae().config.latent_channels == 16
