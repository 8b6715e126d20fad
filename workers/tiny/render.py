"""Scenes as pictures: the training data, and the measure of the evaluator."""

import math
import random
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from workers.tiny.scenes import CENTRES, COLOURS, SIZES, Background, Figure, Scene

STRIPES = 8  # across the width
OVERSAMPLING = 4  # each pixel is the mean of 4 x 4
JITTER = 0.015  # of a figure's centre, as a fraction of the shorter side
GROWTH = 0.05  # of a figure's diameter
RING_HOLE = 0.58  # of its radius

Picture = NDArray[np.uint8]  # (H, W, 3), RGB


def render(scene: Scene, width: int, height: int, rng: random.Random | None = None) -> Picture:
    """Paint the scene, width x height pixels; `rng` moves and scales its figures a little, as different seeds would."""
    picture = paint_background(scene.background, width, height)
    side = min(width, height)
    for figure in scene.figures:
        dx, dy, growth = (rng.uniform(-1, 1) for _ in range(3)) if rng else (0.0, 0.0, 0.0)
        (x, y), radius = circle_of(figure, width, height)
        centre = x + dx * JITTER * side, y + dy * JITTER * side
        cover = paint_shape(figure.shape, centre, radius * (1 + growth * GROWTH), width, height)[..., None]
        picture = picture + cover * (np.array(COLOURS[figure.colour], dtype=np.float32) - picture)
    return picture.round().astype(np.uint8)


def circle_of(figure: Figure, width: int, height: int) -> tuple[tuple[float, float], float]:
    """Centre (x, y) and radius of the circle around a figure, in units of which the picture has width x height."""
    centre = CENTRES[figure.column] * width, CENTRES[figure.row] * height
    return centre, SIZES[figure.size] * min(width, height) / 2


def paint_background(background: Background, width: int, height: int) -> NDArray[np.float32]:
    """(H, W, 3), 0 to 255."""
    first = np.array(COLOURS[background.colour], dtype=np.float32)
    second = np.array(COLOURS[background.second or background.colour], dtype=np.float32)
    if background.fill == "striped":
        share = stripes(width).astype(np.float32)[None, :, None]
    else:  # a plain fill is a gradient to its own colour
        share = slope(height)[:, None, None]
    picture = first + share * (second - first)
    return np.broadcast_to(picture, (height, width, 3))


def stripes(width: int) -> NDArray[np.bool_]:
    """(W,), true where a striped background has its second colour."""
    odd: NDArray[np.bool_] = np.arange(width) * STRIPES // width % 2 == 1
    return odd


def slope(height: int) -> NDArray[np.float32]:
    """(H,), the share of the second colour in a gradient."""
    share: NDArray[np.float32] = (np.arange(height, dtype=np.float32) + np.float32(0.5)) / np.float32(height)
    return share


def paint_shape(shape: str, centre: tuple[float, float], radius: float, width: int, height: int) -> NDArray[np.float32]:
    """How much of each pixel a shape covers, (H, W), 0 to 1; it is inscribed in a circle, measured in pixels."""
    mask = Image.new("L", (width * OVERSAMPLING, height * OVERSAMPLING))
    draw = ImageDraw.Draw(mask)
    x, y, r = (value * OVERSAMPLING for value in (*centre, radius))
    if shape in ("circle", "ring"):
        draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
        if shape == "ring":
            hole = r * RING_HOLE
            draw.ellipse((x - hole, y - hole, x + hole, y + hole), fill=0)
    else:
        draw.polygon([(x + r * px, y + r * py) for px, py in outline(shape)], fill=255)
    cover: NDArray[np.float32] = np.asarray(mask.reduce(OVERSAMPLING), dtype=np.float32) / np.float32(255)
    return cover


@cache
def outline(shape: str) -> tuple[tuple[float, float], ...]:
    """Corners of a polygon in the unit circle; x to the right, y down."""
    match shape:
        case "square":
            s = math.sqrt(0.5)
            return ((-s, -s), (s, -s), (s, s), (-s, s))
        case "diamond":  # narrower than a square on its corner
            return ((0.0, -1.0), (0.68, 0.0), (0.0, 1.0), (-0.68, 0.0))
        case "triangle":
            return tuple((math.sin(a), -math.cos(a)) for a in (0.0, math.tau / 3, 2 * math.tau / 3))
        case "star":
            radii = (1.0, 0.42)
            return tuple(
                (radii[i % 2] * math.sin(i * math.tau / 10), -radii[i % 2] * math.cos(i * math.tau / 10))
                for i in range(10)
            )
        case "cross":
            a, b = 0.3, math.sqrt(1 - 0.3**2)
            return (
                (-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a),
                (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a),
            )  # fmt: skip
        case "heart":
            # x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t, scaled into the circle
            turns = (i * math.tau / 48 for i in range(48))
            return tuple(
                (
                    16 * math.sin(t) ** 3 / 17,
                    -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t) + 2.5) / 17,
                )
                for t in turns
            )
        case _:
            raise ValueError(f"no outline for {shape!r}")
