"""The small world the tiny models draw: one or two coloured shapes on a plain, graded or striped background.

Scenes are plain data. The renderer paints them, captions describe them, and the evaluator reads them back from pixels.
"""

import math
import random
from dataclasses import dataclass
from zlib import crc32

SHAPES = ("circle", "square", "triangle", "diamond", "star", "heart", "ring", "cross")
COLOURS = {
    "red": (220, 30, 40),
    "orange": (250, 130, 20),
    "yellow": (250, 225, 50),
    "green": (40, 160, 60),
    "teal": (20, 190, 190),
    "blue": (40, 70, 220),
    "purple": (130, 40, 170),
    "pink": (255, 150, 200),
    "black": (20, 20, 20),
    "white": (245, 245, 245),
}
# Diameters, as fractions of the picture's shorter side.
SIZES = {"small": 0.20, "medium": 0.30, "large": 0.44}
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "centre", "right")
CENTRES = (0.27, 0.50, 0.73)  # of rows and columns, as fractions of height and width
FILLS = ("plain", "gradient", "striped")
GAP = 0.03  # least distance between two figures' circumscribed circles
CONTRAST = 80  # least distance in RGB between a figure and a gradient's shades
HELD_OUT_IN = 8  # one combination of attributes in this many is kept from training


@dataclass(frozen=True, slots=True)
class Figure:
    """One shape, in a cell of a 3 x 3 grid; row 0 is the top, column 0 the left."""

    shape: str
    colour: str
    size: str
    row: int
    column: int

    @property
    def held_out(self) -> bool:
        """Whether no training picture shows this combination of all five attributes."""
        key = f"{self.shape} {self.colour} {self.size} {self.row} {self.column}"
        return crc32(key.encode()) % HELD_OUT_IN == 0


@dataclass(frozen=True, slots=True)
class Background:
    """What lies behind the figures.

    A gradient runs from `colour` at the top to `second` at the bottom; stripes are vertical, `colour` the leftmost.
    `second` is None for a plain fill.
    """

    fill: str
    colour: str
    second: str | None


@dataclass(frozen=True, slots=True)
class Scene:
    """One or two figures of distinct shapes, apart from each other, none in a colour of the background."""

    background: Background
    figures: tuple[Figure, ...]


def draw_scene(rng: random.Random, figures: int | None = None, held_out: bool = False) -> Scene:
    """Draw a scene of so many figures (one or two by default), all of them held out of training or none.

    The same state of `rng` gives the same scene.
    """
    fill = rng.choice(FILLS)
    first, second, *rest = rng.sample(sorted(COLOURS), len(COLOURS))
    background = Background(fill, first, None if fill == "plain" else second)
    count = figures or rng.choice((1, 2))
    while True:
        drawn = tuple(
            Figure(shape, rng.choice(rest), rng.choice(tuple(SIZES)), rng.randrange(3), rng.randrange(3))
            for shape in rng.sample(SHAPES, count)
        )
        if all(figure.held_out == held_out and _visible(figure, background) for figure in drawn) and _apart(drawn):
            return Scene(background, drawn)


def _visible(figure: Figure, background: Background) -> bool:
    """Whether no shade of a gradient comes close to the figure's colour, as a red to yellow one does to orange."""
    if background.fill != "gradient" or background.second is None:
        return True
    colour, first, second = (COLOURS[name] for name in (figure.colour, background.colour, background.second))
    shades = ([a + (b - a) * i / 16 for a, b in zip(first, second, strict=True)] for i in range(17))
    return min(math.dist(colour, shade) for shade in shades) >= CONTRAST


def _apart(figures: tuple[Figure, ...]) -> bool:
    if len(figures) == 1:
        return True
    a, b = figures
    distance = math.dist((CENTRES[a.row], CENTRES[a.column]), (CENTRES[b.row], CENTRES[b.column]))
    return distance >= (SIZES[a.size] + SIZES[b.size]) / 2 + GAP
