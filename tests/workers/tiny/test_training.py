"""The recipe of the bundled models, with a budget of a few steps: every stage runs, resumes, and repeats."""

import math
import random
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline, StableDiffusion3Pipeline
from PIL import Image
from torch import nn

from app.catalog.catalog import Catalog
from workers.engine.batch import DenoiseBatch
from workers.pipelines.load import load_pipeline
from workers.tiny import components
from workers.tiny.build import build_model, copy_links, link_equal_weights
from workers.tiny.captions import describe
from workers.tiny.card import KINDS, model_card, plot_curves, read_curve
from workers.tiny.components import LATENT_CHANNELS
from workers.tiny.drawing import Artist
from workers.tiny.facts import NOTHING
from workers.tiny.pipelines import NAMES
from workers.tiny.scenes import SIZES, draw_scene
from workers.tiny.training import guidance, reflow
from workers.tiny.training.conditions import Condition, flux_condition, sd3_condition
from workers.tiny.training.flow import FIGURE_WEIGHT, LATE, Batches, Course, add_noise, cover, draw_times, velocity_loss
from workers.tiny.training.latents import encode_scenes, fingerprint
from workers.tiny.training.loop import Draw, RunError, Stage, train
from workers.tiny.training.recipe import Budget, Recipe
from workers.tiny.training.text import CLASSES, classes_of
from workers.tiny.training.velocity import flux_velocity, sd3_velocity

# The whole recipe, on however busy a machine.
pytestmark = pytest.mark.timeout(900)

VAE_FILE = "diffusion_pytorch_model.safetensors"
CPU = torch.device("cpu")
SMOKE = Budget(
    vae=2,
    decoder=2,
    text=2,
    sd3=Course(4, early_steps=1),
    sd3_long=2,
    flux=Course(2, early_steps=1),
    flux_dev=2,
    flux_dev_data=2,
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
    assert all((tmp_path / name / "vae" / "latent_rgb.json").is_file() for name in NAMES), "or it has no previews"


@pytest.mark.parametrize("again", ["tiny-flux-dev", "tiny-sd3"])
def test_equal_weights_are_kept_once_and_no_model_writes_anothers(recipe: Recipe, tmp_path: Path, again: str) -> None:
    for name in ("tiny-flux-dev", "tiny-sd3"):
        build_model(name, recipe, tmp_path / name)
    kept, linked = (tmp_path / name / "vae" / VAE_FILE for name in ("tiny-flux-dev", "tiny-sd3"))
    weights = kept.read_bytes()
    link_equal_weights(tmp_path)
    assert (kept.is_symlink(), linked.is_symlink(), linked.read_bytes() == weights) == (False, True, True)
    StableDiffusion3Pipeline.from_pretrained(tmp_path / "tiny-sd3")
    kept.write_bytes(b"of an older run")
    copy_links(tmp_path)
    build_model(again, recipe, tmp_path / again)
    older = {"tiny-flux-dev": linked, "tiny-sd3": kept}[again]
    newer = {"tiny-flux-dev": kept, "tiny-sd3": linked}[again]
    assert (older.read_bytes(), newer.read_bytes()) == (b"of an older run", weights)


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
    build_model("tiny-sd3", recipe, tmp_path / "tiny-sd3")
    stock = StableDiffusion3Pipeline.from_pretrained(tmp_path / "tiny-sd3")
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

    return Stage("small", module, loss, steps, matrix_rate=1.0)  # 60 steps end in the warm-up


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
    assert [point.step for point in read_curve(tmp_path / "cut" / "small.csv")] == [10, 20, 30, 40, 50, 60]
    losses = [point.loss for point in read_curve(tmp_path / "whole" / "small.csv")]
    assert losses[-1] < losses[0] / 2


def test_times_cover_the_line_and_noise_is_mixed_in_by_them() -> None:
    draw = Draw("test", 0)
    times = draw_times(4000, draw.generator)
    assert 0 < times.min() < 0.05
    assert 0.95 < times.max() < 1
    pictures = torch.ones(64, LATENT_CHANNELS, 8, 8)
    noisy, times, noise = add_noise(pictures, draw)
    i = int(times.argmin())
    torch.testing.assert_close(noisy[i], pictures[i] + times[i] * (noise[i] - pictures[i]))


def test_too_large_costs_as_much_as_too_small() -> None:
    """Where a figure is counts more than the background, however large it is to be."""
    rng = random.Random(0)
    scene = draw_scene(rng, figures=2)
    sized = [replace(scene, figures=tuple(replace(f, size=size) for f in scene.figures)) for size in SIZES]
    small, *others = [cover(each, 128, 128) for each in sized]
    assert all(torch.equal(small, other) for other in others)
    assert 0 < small.mean() < 0.7


def test_facts_become_classes() -> None:
    assert classes_of(NOTHING) == [0] * len(CLASSES)
    rng = random.Random(0)
    seen = [classes_of(describe(rng)[1]) for _ in range(3000)]
    for column, count in zip(zip(*seen, strict=True), CLASSES, strict=True):
        assert set(column) <= set(range(count))
        assert len(set(column)) >= count - 1  # a first figure is always stated


def test_schnell_starts_as_dev_at_its_guidance(recipe: Recipe) -> None:
    condition = flux_condition(recipe.encoders, recipe.tokenizers, ["a red ring", "a blue star"], 40)
    latents, times = torch.randn(2, LATENT_CHANNELS, 8, 8), torch.tensor([0.9, 0.3])
    student = components.flux_transformer(guidance=False).eval()
    reflow.start_student(student, recipe.flux_dev)
    taught = flux_velocity(recipe.flux_dev, latents, times, condition, torch.full((2,), reflow.GUIDANCE))
    with torch.no_grad():
        torch.testing.assert_close(flux_velocity(student, latents, times, condition), taught)


def test_dev_starts_as_its_teacher(recipe: Recipe) -> None:
    condition = flux_condition(recipe.encoders, recipe.tokenizers, ["a red ring"], 40)
    latents, times = torch.randn(1, LATENT_CHANNELS, 8, 8), torch.tensor([0.5])
    student = components.flux_transformer(guidance=True).eval()
    guidance.start_student(student, recipe.flux_teacher)
    with torch.no_grad():
        started = flux_velocity(student, latents, times, condition, torch.tensor([7.0]))
    torch.testing.assert_close(started, flux_velocity(recipe.flux_teacher, latents, times, condition))


def test_dev_learns_from_its_teacher_and_then_from_the_data(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """At guidance 1 the teacher has nothing to add to itself, and the data lead to the pictures."""
    monkeypatch.setattr(guidance, "GUIDANCE", (1.0, 1.0))
    monkeypatch.setattr(guidance, "DATA_GUIDANCE", (1.0, 1.0))
    monkeypatch.setattr(guidance, "DATA_SHARE", 1.0)
    teacher, encode = recipe.flux_teacher, partial(flux_condition, recipe.encoders, recipe.tokenizers)
    batches = Batches(recipe.latents, encode, CPU)
    student = components.flux_transformer(guidance=True).eval()
    guidance.start_student(student, teacher)
    monkeypatch.setattr(guidance, "TWO_FIGURES_SHARE", 1.0)
    draw = Draw("flux-dev-data", 0)
    draw.rng.random()  # whether to have two figures in each picture
    batch = batches.draw(draw, guidance.DATA_SIZES, dropped=0.0, phase=1, least_figures=2)
    with torch.no_grad():
        assert guidance.guidance_stage(student, teacher, batches, 1).loss(Draw("flux-dev", 0)) < 1e-9
        expected = velocity_loss(partial(flux_velocity, teacher), batch, draw, FIGURE_WEIGHT[1])
        torch.testing.assert_close(
            guidance.data_stage(student, teacher, batches, 1).loss(Draw("flux-dev-data", 0)), expected
        )


@pytest.mark.parametrize("name", ["tiny-sd3", "tiny-flux-dev"])
def test_training_asks_the_transformer_as_the_server_does(recipe: Recipe, tmp_path: Path, name: str) -> None:
    """Same latents, time and prompt: the same velocity as from the step pipeline that serves it."""
    build_model(name, recipe, tmp_path / name)
    card = Catalog.load()[name]
    served = load_pipeline(card, tmp_path / name, CPU, torch.float32)
    conditioning = served.encode("a red ring", 128)
    latents, times = torch.randn(1, LATENT_CHANNELS, 8, 12), torch.tensor([0.75])
    condition = Condition(conditioning.prompt_embeds, conditioning.pooled_prompt_embeds)
    packed = FluxPipeline._pack_latents(latents, 1, LATENT_CHANNELS, 8, 12) if name != "tiny-sd3" else latents
    batch = DenoiseBatch(
        latents=packed,
        timesteps=times * 1000,
        guidance=torch.tensor([3.5]),
        prompt_embeds=condition.context,
        pooled_prompt_embeds=condition.pooled,
        height=64,
        width=96,
    )
    with torch.no_grad():
        velocity = served.denoise(batch)
        if name == "tiny-sd3":
            trained = sd3_velocity(recipe.sd3, latents, times, condition)
        else:
            trained = flux_velocity(recipe.flux_dev, latents, times, condition, torch.tensor([3.5]))
            velocity = FluxPipeline._unpack_latents(velocity, 64, 96, 8)
    torch.testing.assert_close(velocity, trained, atol=3e-2, rtol=0)  # half precision lies between


def test_a_card_is_written_from_the_results(recipe: Recipe, tmp_path: Path) -> None:
    shares = {"shape": 0.5, "joint": 0.25}
    results = {
        "vae": {"psnr_db": 33.3, "worst_psnr_db": 27.7, "adherence": shares},
        "measure": {"one": dict.fromkeys(("renders", "wrong", "miscounted", "chance"), shares)},
        "models": {
            name: {
                "prompts": {"one": 500, "two": 200, "unplaced": 100, "grid": 50},
                "one": shares,
                "two": shares,
                "unplaced": {"one": shares, "two": shares},
                "contrast": {"guidance_scale": 1.0, **shares},
                "seconds": 0.5,
                "length": {"within": {"pictures": 460, **shares}, "beyond": {"pictures": 40, **shares}},
                "grid": [{"steps": 4, "guidance": 1.0, **shares}, {"steps": 4, "guidance": 2.0, **shares}],
                "sizes": {"64x64": shares},
                "diversity": {
                    "seeds": 16,
                    "mean_difference": 40.0,
                    "places": 5.0,
                    "backgrounds": 9.0,
                    "same_seed_repeats": True,
                },
            }
            for name in NAMES
        },
    }
    for name in NAMES:
        card = model_card(name, 1234, results, recipe.folder, "a test")
        assert f"# {name}" in card
        assert "25.0" in card
        assert "33.3 dB" in card
        assert "a test" in card
        plot_curves(KINDS[name].stages, recipe.folder, tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as curves:
            assert curves.width > 300


def test_a_run_of_other_settings_is_refused(recipe: Recipe) -> None:
    with pytest.raises(RunError, match="was begun with"):
        assert Recipe(recipe.folder, CPU, replace(SMOKE, vae=5)).vae


def test_a_transformer_of_another_vae_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    train(small_stage(2), tmp_path, fingerprint(recipe.vae))
    train(small_stage(2), tmp_path, fingerprint(recipe.vae))
    with pytest.raises(RunError, match="learnt from other parts"):
        train(small_stage(2), tmp_path, fingerprint(components.vae()))


@pytest.mark.parametrize("damage", [b"", b"text", b"cut"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, damage: bytes) -> None:
    train(small_stage(steps=4), tmp_path)
    checkpoint = tmp_path / "small.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:100] if damage == b"cut" else damage)
    with pytest.raises(RunError, match=r"small\.pt is no checkpoint"):
        train(small_stage(steps=4), tmp_path)


def test_a_loss_that_is_no_number_ends_the_run_and_leaves_the_checkpoint(tmp_path: Path) -> None:
    stage = small_stage(steps=250)
    good = stage.loss
    bad = replace(stage, loss=lambda draw: good(draw) * (math.nan if draw.step == 210 else 1.0))
    with pytest.raises(RunError, match="nan at step 211"):
        train(bad, tmp_path)
    state = torch.load(tmp_path / "small.pt")
    assert state["step"] == 200
    assert all(torch.isfinite(value).all() for value in state["module"].values())


def test_a_part_begins_alike_whatever_was_asked_for_before(recipe: Recipe, tmp_path: Path) -> None:
    """Each part draws its own random numbers, even where it has those before it made first."""
    alone = Recipe(tmp_path, CPU, SMOKE).flux_teacher
    for ours, theirs in zip(alone.parameters(), recipe.flux_teacher.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_latents_of_another_vae_are_made_anew(recipe: Recipe, tmp_path: Path) -> None:
    size = (64, 64)
    torch.manual_seed(1)
    first = encode_scenes(recipe.vae, size, 4, tmp_path).latents
    assert torch.equal(encode_scenes(recipe.vae, size, 4, tmp_path).latents, first)
    assert not torch.equal(encode_scenes(components.vae().eval(), size, 4, tmp_path).latents, first)
    assert len(encode_scenes(recipe.vae, size, 5, tmp_path).latents) == 5


def test_the_rates_rise_hold_and_fall_in_every_round() -> None:
    stage = replace(small_stage(2000), hold=0.7, rounds=2)
    assert [stage.fallen(step) for step in (0, 699, 850, 1000, 1699, 1850)] == [0, 0, 0.5, 0, 0, 0.5]
    assert 0.99 < stage.fallen(999) < 1
