"""The small world the tiny models draw: coloured shapes on a plain, shaded, striped or checkered background.

A scene is plain data, so one description serves the caption writer, the tokenizers' corpus and a later renderer.
"""

import random
from dataclasses import dataclass

SHAPES = ("circle", "square", "triangle", "star", "diamond", "ring", "cross", "heart", "hexagon", "crescent")
COLOURS = (
    "red",
    "orange",
    "yellow",
    "green",
    "teal",
    "blue",
    "purple",
    "pink",
    "brown",
    "black",
    "grey",
    "white",
)
SIZES = ("tiny", "small", "medium", "large", "huge")
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "centre", "right")
FILLS = ("plain", "gradient", "striped", "checkered")


@dataclass(frozen=True, slots=True)
class Figure:
    """One shape, in a cell of a 3 x 3 grid; row 0 is the top, column 0 the left."""

    shape: str
    colour: str
    size: str
    row: int
    column: int


@dataclass(frozen=True, slots=True)
class Background:
    """What lies behind the figures; `second` is None for a plain fill."""

    fill: str
    colour: str
    second: str | None


@dataclass(frozen=True, slots=True)
class Scene:
    """One to three figures of distinct shapes in distinct cells, none in a colour of the background."""

    background: Background
    figures: tuple[Figure, ...]


def draw_scene(rng: random.Random) -> Scene:
    """Draw a scene; the same state of `rng` gives the same scene."""
    fill = rng.choice(FILLS)
    first, second, *rest = rng.sample(COLOURS, len(COLOURS))
    background = Background(fill, first, None if fill == "plain" else second)
    count = rng.randint(1, 3)
    shapes, cells = rng.sample(SHAPES, count), rng.sample(range(len(ROWS) * len(COLUMNS)), count)
    figures = tuple(
        Figure(shape, rng.choice(rest), rng.choice(SIZES), *divmod(cell, len(COLUMNS)))
        for shape, cell in zip(shapes, cells, strict=True)
    )
    return Scene(background, figures)
