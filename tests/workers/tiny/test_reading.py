"""The evaluator: it must see what is there, and must not see what is not."""

import io
import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from workers.tiny.adherence import means, score
from workers.tiny.evaluation import SIZES as PICTURE_SIZES
from workers.tiny.evaluation import faults, measure_the_measure, perfect_reading
from workers.tiny.facts import Facts, FigureFacts, facts_of
from workers.tiny.prompts import held_out_prompts
from workers.tiny.reading import read_scene
from workers.tiny.render import paint_shape, render
from workers.tiny.scenes import COLOURS, SIZES, Background, Figure, Scene

RING = Figure("ring", "red", "medium", 1, 0)
SCENE = Scene(Background("plain", "blue", None), (RING,))


def drawn(scene: Scene, width: int = 128, height: int = 128) -> dict[str, bool]:
    """How the picture of this scene does against the prompt of SCENE."""
    return dict(score(facts_of(SCENE), read_scene(render(scene, width, height))))


@pytest.mark.parametrize("figures", [1, 2])
def test_renders_score_full_marks_and_wrong_ones_only_what_chance_gives(figures: int) -> None:
    measured = measure_the_measure(150, figures)
    assert faults(measured) == []
    assert measured["wrong"]["joint"] <= 0.02


def test_a_measure_that_passes_too_much_or_too_little_is_found_out() -> None:
    good = {"joint": 1.0, "shape": 1.0, "count": 1.0}
    chance = {"joint": 0.0, "shape": 0.125, "count": 1.0}
    measure = {"renders": good, "wrong": chance, "miscounted": {**chance, "count": 0.0}, "chance": chance}
    assert faults(measure) == []
    assert "renders of the prompt pass in 97.0%" in faults({**measure, "renders": {**good, "joint": 0.97}})[0]
    assert "shape holds in 100.0% of other renders" in faults({**measure, "wrong": {**chance, "shape": 1.0}})[0]
    assert "a wrong count passes" in faults({**measure, "miscounted": chance})[0]


@pytest.mark.parametrize("size", [*PICTURE_SIZES, (96, 64), (100, 100), (150, 120)])
def test_every_size_is_read(size: tuple[int, int]) -> None:
    rng = random.Random(0)
    prompts = held_out_prompts(12, figures=2)
    scores = [score(p.facts, read_scene(render(p.scene, *size, rng))) for p in prompts]
    assert means(scores)["joint"] == 1.0


@pytest.mark.parametrize(
    ("attribute", "change"),
    [
        ("shape", {"shape": "circle"}),
        ("colour", {"colour": "pink"}),
        ("size", {"size": "large"}),
        ("position", {"column": 2}),
        ("position", {"row": 0}),
    ],
)
def test_one_wrong_attribute_is_the_one_that_is_named(attribute: str, change: dict[str, object]) -> None:
    result = drawn(Scene(SCENE.background, (replace(RING, **change),)))  # type: ignore[arg-type]
    assert [name for name, holds in result.items() if not holds] == [attribute, "joint"]


@pytest.mark.parametrize(
    "background",
    [
        Background("plain", "teal", None),
        Background("gradient", "blue", "white"),
        Background("striped", "blue", "white"),
    ],
    ids=str,
)
def test_a_wrong_background_is_seen(background: Background) -> None:
    result = drawn(Scene(background, (RING,)))
    assert [name for name, holds in result.items() if not holds] == ["background", "joint"]


@pytest.mark.parametrize(
    ("colour", "first", "second"), [("orange", "red", "yellow"), ("pink", "red", "white"), ("purple", "red", "blue")]
)
@pytest.mark.parametrize("shape", ["circle", "star", "ring"])
def test_a_colour_between_those_of_the_stripes_is_no_background(
    shape: str, colour: str, first: str, second: str
) -> None:
    for size, column in itertools.product(SIZES, range(3)):
        scene = Scene(Background("striped", first, second), (Figure(shape, colour, size, 1, column),))
        assert score(facts_of(scene), read_scene(render(scene, 128, 128)))["joint"], (size, column)


def test_what_resembles_nothing_is_unknown() -> None:
    picture = render(Scene(SCENE.background, ()), 128, 128).copy()
    picture[40:80, 40:50] = picture[70:80, 40:80] = (128, 128, 128)
    (seen,) = read_scene(picture).figures
    assert (seen.shape, seen.colour) == ("unknown", "unknown")
    picture[30:110, 20:120] = (250, 225, 50)
    assert read_scene(picture).figures[0].size == "unknown"


def test_a_figure_too_many_or_too_few_is_seen() -> None:
    both = drawn(Scene(SCENE.background, (RING, Figure("star", "white", "small", 0, 2))))
    assert [name for name, holds in both.items() if not holds] == ["count", "joint"]
    assert not any(holds for name, holds in drawn(Scene(SCENE.background, ())).items() if name != "background")


def test_a_relation_is_between_the_shapes_that_are_named() -> None:
    facts = Facts((FigureFacts("ring", "red"), FigureFacts("star", "white")), relation="to the left of")
    star = Figure("star", "white", "small", 1, 2)
    assert score(facts, perfect_reading(Scene(SCENE.background, (RING, star))))["relation"]
    swapped = replace(RING, column=2), replace(star, column=0)
    assert not score(facts, perfect_reading(Scene(SCENE.background, swapped)))["relation"]
    other = replace(star, shape="cross")
    assert not score(facts, perfect_reading(Scene(SCENE.background, (RING, other))))["relation"]


def test_noise_and_emptiness_are_no_figures() -> None:
    assert read_scene(np.full((64, 64, 3), 200, dtype=np.uint8)).figures == ()
    noise = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    assert all(figure.colour == "unknown" for figure in read_scene(noise).figures)


def test_many_specks_are_dirt() -> None:
    picture = render(SCENE, 128, 128).copy()
    for x in range(60, 120, 12):
        picture[8:14, x : x + 5] = 0
    result = score(facts_of(SCENE), read_scene(picture))
    assert [name for name, holds in result.items() if not holds] == ["count", "joint"]


@pytest.mark.parametrize("centre", [(64.0, 64.0), (100.0, 64.0)], ids=["upon it", "over its edge"])
def test_another_figure_upon_one_is_dirt(centre: tuple[float, float]) -> None:
    scene = Scene(SCENE.background, (Figure("circle", "red", "large", 1, 1),))
    picture = render(scene, 128, 128).copy()
    picture[paint_shape("star", centre, SIZES["small"] * 64, 128, 128) > 0.5] = COLOURS["white"]
    reading = read_scene(picture)
    assert [figure.colour for figure in reading.figures] == ["red"]
    assert not reading.clean


@pytest.mark.parametrize(("kind", "quality"), [("JPEG", 75), ("WEBP", 80)])
def test_the_formats_that_clients_get_can_be_read(kind: str, quality: int) -> None:
    rng = random.Random(0)
    prompts = held_out_prompts(24, figures=2)
    scores = []
    for prompt in prompts:
        data = io.BytesIO()
        Image.fromarray(render(prompt.scene, 128, 128, rng)).save(data, kind, quality=quality)
        scores.append(score(prompt.facts, read_scene(np.asarray(Image.open(data).convert("RGB")))))
    assert means(scores)["colour"] == 1.0
    assert means(scores)["joint"] >= 0.9


def test_a_figure_of_two_colours_has_none() -> None:
    scene = Scene(SCENE.background, (Figure("circle", "red", "large", 1, 1),))
    picture = render(scene, 128, 128).copy()
    red = (picture == COLOURS["red"]).all(axis=2)
    red[:, 52:] = False
    picture[red] = COLOURS["yellow"]
    assert 0.2 < red.sum() / (np.pi * (SIZES["large"] * 64) ** 2) < 0.45
    (seen,) = read_scene(picture).figures
    assert (seen.shape, seen.colour) == ("circle", "unknown")


def test_a_specked_and_slightly_blurred_picture_is_still_read() -> None:
    picture = render(SCENE, 128, 128).astype(np.int16)
    blurred = (picture + np.roll(picture, 1, 0) + np.roll(picture, 1, 1) + np.roll(picture, -1, 1)) // 4
    blurred[100:103, 100:103] = 255
    noisy = (blurred + np.random.default_rng(0).integers(-12, 12, picture.shape)).clip(0, 255).astype(np.uint8)
    assert score(facts_of(SCENE), read_scene(noisy))["joint"]


@pytest.mark.parametrize("shape", ["square", "star", "cross", "ring"])
@pytest.mark.parametrize("size", ["small", "large"])
def test_a_blurred_figure_with_a_spur_is_still_its_shape_and_size(shape: str, size: str) -> None:
    """A decoder's soft edges and a stray pixel or two make the box around a figure larger than the figure."""
    scene = Scene(SCENE.background, (Figure(shape, "white", size, 1, 1),))
    picture = render(scene, 128, 128).astype(np.float32)
    for axis in (0, 1):
        picture = np.mean([np.roll(picture, shift, axis) for shift in (-1, 0, 1)], axis=0)
    reach = round(SIZES[size] * 64) + 5
    picture[63:65, 64 : 64 + reach] = COLOURS["white"]
    (seen,) = read_scene(picture.round().astype(np.uint8)).figures
    assert (seen.shape, seen.size) == (shape, size)
