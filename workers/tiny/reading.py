"""Reads a scene back from pixels, knowing nothing of the prompt: what is to be seen, not what was meant.

The background is told from the picture's edge, which figures hardly reach. What differs from it falls into connected
pieces; each piece is compared with every shape, drawn where and as large as it covers the piece best. What resembles
nothing in the world is "unknown".
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.tiny.render import STRIPES, Picture, outline, paint_shape, slope, stripes
from workers.tiny.scenes import CENTRES, COLOURS, SHAPES, SIZES, Background

EDGE = 0.03  # of the shorter side: how wide the edge is that tells the background
CONTRAST = 48.0  # distance in RGB from the background that makes a pixel part of a figure
FAR = 70.0  # distance in RGB from the nearest colour that makes a colour none of the world's
ALIKE = 0.6  # intersection over union with the most similar shape
OFF = 1.3  # a diameter larger or smaller by this factor is none of the world's
UNKNOWN = "unknown"
SMALLEST = 0.004  # of the squared shorter side: what is smaller is a blemish, not a figure
LIKELY = 4  # shapes that are moved and scaled, to see which covers a piece best
RIM = 2  # pixels of a figure's edge that a decoder or JPEG may blur
PURE = 0.8  # share of a figure that must be of about one colour for it to have a colour

Mask = NDArray[np.bool_]  # (H, W)


@dataclass(frozen=True, slots=True)
class Sighting:
    """A figure as it is seen; `x` and `y` are its centre as fractions of width and height."""

    shape: str
    colour: str
    size: str
    row: int
    column: int
    x: float
    y: float
    overlap: float  # with the shape drawn in its place: intersection over union


@dataclass(frozen=True, slots=True)
class Reading:
    """What a picture shows; the figures from the largest to the smallest.

    dirt: share of the squared shorter side that is neither background nor figure: pieces too small for one, and what in
    a figure is of neither colour.
    """

    background: Background
    figures: tuple[Sighting, ...]
    dirt: float = 0.0

    @property
    def clean(self) -> bool:
        """Whether all the blemishes together are still none."""
        return self.dirt < SMALLEST


def read_scene(picture: Picture) -> Reading:
    """Read a picture `(H, W, 3)`, uint8 RGB."""
    background, backdrop = _read_background(picture.astype(np.float32))
    mask = _differs(picture.astype(np.float32), backdrop, striped=background.fill == "striped")
    area = min(mask.shape) ** 2
    pieces = [piece for piece in _pieces(mask) if piece.sum() >= SMALLEST * area]
    pieces.sort(key=lambda piece: -int(piece.sum()))
    dirt = int(mask.sum()) - sum(int(piece.sum()) for piece in pieces)
    dirt += sum(_strange(picture, backdrop, piece) for piece in pieces)
    return Reading(background, tuple(_read_figure(picture, backdrop, piece) for piece in pieces), dirt / area)


def colour_name(colour: NDArray[np.float32]) -> str:
    """The nearest of COLOURS to an RGB triple, or "unknown" far from all of them."""
    name = min(COLOURS, key=lambda name: math.dist(colour, COLOURS[name]))
    return name if math.dist(colour, COLOURS[name]) <= FAR else UNKNOWN


def _read_background(picture: NDArray[np.float32]) -> tuple[Background, NDArray[np.float32]]:
    """The fill that explains the edge best, and the picture `(H, W, 3)` it makes without figures."""
    height, width, _ = picture.shape
    edge = max(2, round(EDGE * min(height, width)))
    rim = np.ones((height, width), dtype=bool)
    rim[edge:-edge, edge:-edge] = False

    plain = np.median(picture[rim], axis=0)
    top = np.median(picture[:edge].reshape(-1, 3), axis=0)
    bottom = np.median(picture[-edge:].reshape(-1, 3), axis=0)
    share = slope(height)[:, None, None]
    ends = np.concatenate([picture[:edge], picture[-edge:]])
    odd = stripes(width)
    first, second = (np.median(ends[:, chosen].reshape(-1, 3), axis=0) for chosen in (~odd, odd))

    candidates = {
        "plain": (plain, None, np.broadcast_to(plain, picture.shape)),
        "gradient": (top, bottom, np.broadcast_to(top + share * (bottom - top), picture.shape)),
        "striped": (first, second, np.broadcast_to(np.where(odd[None, :, None], second, first), picture.shape)),
    }
    best, least = "plain", math.inf
    for fill, (one, other, backdrop) in candidates.items():
        # Clipped: a figure that touches the edge counts once, however far its colour is.
        error = float(np.minimum(np.linalg.norm(picture - backdrop, axis=2)[rim], 100).mean())
        # Two ends of one name are a plain fill with a cast.
        if other is not None and colour_name(one) == colour_name(other):
            error = math.inf
        if error < least:
            best, least = fill, error
    one, other, backdrop = candidates[best]
    return Background(best, colour_name(one), None if other is None else colour_name(other)), backdrop


def _differs(picture: NDArray[np.float32], backdrop: NDArray[np.float32], striped: bool) -> Mask:
    far: Mask = np.linalg.norm(picture - backdrop, axis=2) > CONTRAST
    if striped:
        # Where two stripes meet, any mixture of them belongs to the background.
        width = picture.shape[1]
        first, second = backdrop[0, 0], backdrop[0, int(stripes(width).argmax())]
        along = ((picture - first) @ (second - first) / ((second - first) @ (second - first))).clip(0, 1)
        mixture = np.linalg.norm(picture - (first + along[..., None] * (second - first)), axis=2) <= CONTRAST
        place = (np.arange(width) + 0.5) * STRIPES / width % 1 * (width / STRIPES)
        reach = max(2, width // 64)
        seam = np.minimum(place, width / STRIPES - place) < reach
        # Unless it hangs together with a figure beside the seam: orange is a mixture of red and yellow.
        figure: Mask = far & ~(mixture & seam[None, :])
        for _ in range(2 * reach):
            figure = far & _grown(figure)
        far = figure
    return far


def _pieces(mask: Mask) -> list[Mask]:
    """The connected pieces of a mask, diagonal neighbours included: each pixel takes the largest number around it."""
    numbers = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        spread = np.where(mask, _grown(numbers), 0)
        if np.array_equal(spread, numbers):
            return [numbers == number for number in np.unique(numbers) if number > 0]
        numbers = spread


def _grown(values: NDArray[Any]) -> NDArray[Any]:
    """Each pixel becomes the largest of itself and its eight neighbours."""
    padded = np.pad(values, 1)
    rows = np.maximum(np.maximum(padded[:-2], padded[2:]), padded[1:-1])
    largest: NDArray[Any] = np.maximum(np.maximum(rows[:, :-2], rows[:, 2:]), rows[:, 1:-1])
    return largest


@dataclass(frozen=True, slots=True)
class _Fit:
    """A shape in its place, in pixels, and how well it covers a piece: intersection over union."""

    shape: str
    x: float
    y: float
    radius: float
    overlap: float


def _read_figure(picture: Picture, backdrop: NDArray[np.float32], piece: Mask) -> Sighting:
    height, width = piece.shape
    core = picture[_core(piece)].astype(np.float32)
    # Half-way to the background is where a blurred edge is.
    from_figure = np.linalg.norm(picture - np.median(core, axis=0), axis=2)
    sharp = piece & (from_figure < np.linalg.norm(picture - backdrop, axis=2))
    piece = sharp if sharp.any() else piece
    ys, xs = np.nonzero(piece)
    left, right, top, bottom = xs.min(), xs.max() + 1, ys.min(), ys.max() + 1
    margin = max(2, (right - left + bottom - top) // 8)
    x0, y0 = max(0, left - margin), max(0, top - margin)
    window = piece[y0 : bottom + margin, x0 : right + margin]
    likely = sorted((_fit_box(shape, window) for shape in SHAPES), key=lambda fit: -fit.overlap)[:LIKELY]
    best = max((_improve(fit, window) for fit in likely), key=lambda fit: fit.overlap)
    x, y, diameter = best.x + x0, best.y + y0, 2 * best.radius / min(height, width)
    return Sighting(
        shape=best.shape if best.overlap >= ALIKE else UNKNOWN,
        colour=_one_colour(core),
        size=_size(diameter),
        row=_nearest(y / height),
        column=_nearest(x / width),
        x=x / width,
        y=y / height,
        overlap=best.overlap,
    )


def _fit_box(shape: str, window: Mask) -> _Fit:
    """The shape in the box around the piece."""
    ys, xs = np.nonzero(window)
    left, right, top, bottom = xs.min(), xs.max() + 1, ys.min(), ys.max() + 1
    low_x, high_x, low_y, high_y = _extent(shape)
    radius = ((right - left) / (high_x - low_x) + (bottom - top) / (high_y - low_y)) / 2
    x = (left + right) / 2 - radius * (low_x + high_x) / 2
    y = (top + bottom) / 2 - radius * (low_y + high_y) / 2
    return _placed(shape, x, y, radius, window)


def _improve(fit: _Fit, window: Mask) -> _Fit:
    """Move and scale the shape for as long as it covers the piece better: a spur or a halo makes the box too large."""
    for share in (0.1, 0.05):
        better: _Fit | None = fit
        while better is not None:
            fit, step = better, share * better.radius
            moved = (
                _placed(fit.shape, fit.x + dx * step, fit.y + dy * step, fit.radius + dr * step, window)
                for dx, dy, dr in ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))
            )
            better = max((other for other in moved if other.overlap > fit.overlap), key=_overlap, default=None)
    return fit


def _placed(shape: str, x: float, y: float, radius: float, window: Mask) -> _Fit:
    height, width = window.shape
    drawn = paint_shape(shape, (x, y), radius, width, height) > 0.5
    return _Fit(shape, x, y, radius, float((drawn & window).sum() / max(1, (drawn | window).sum())))


def _overlap(fit: _Fit) -> float:
    return fit.overlap


def _one_colour(pixels: NDArray[np.float32]) -> str:
    """The name of the colour that nearly all of these (N, 3) have, or "unknown"."""
    median = np.median(pixels, axis=0)
    near = np.linalg.norm(pixels - median, axis=1) <= CONTRAST
    return colour_name(median) if near.mean() >= PURE else UNKNOWN


def _strange(picture: Picture, backdrop: NDArray[np.float32], piece: Mask) -> int:
    """Pixels inside a piece that are no mixture of its colour and the background's: another figure upon it, perhaps."""
    inside = _core(piece)
    median = np.median(picture[inside].astype(np.float32), axis=0)
    towards = median - backdrop
    along = ((picture - backdrop) * towards).sum(2) / np.maximum(1.0, np.square(towards).sum(2))
    mixture = backdrop + along.clip(0, 1)[..., None] * towards
    return int((inside & (np.linalg.norm(picture - mixture, axis=2) > CONTRAST)).sum())


def _size(diameter: float) -> str:
    size = min(SIZES, key=lambda name: abs(math.log(diameter / SIZES[name])))
    return size if 1 / OFF < diameter / SIZES[size] < OFF else UNKNOWN


def _extent(shape: str) -> tuple[float, float, float, float]:
    """Least and greatest x, least and greatest y of a shape of radius 1."""
    if shape in ("circle", "ring"):
        return -1.0, 1.0, -1.0, 1.0
    xs, ys = zip(*outline(shape), strict=True)
    return min(xs), max(xs), min(ys), max(ys)


def _core(piece: Mask) -> Mask:
    """The piece without its blurred rim, as far as it is not too thin for that."""
    for _ in range(RIM):
        padded = np.pad(piece, 1)
        core: Mask = piece & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        if core.sum() < 8:
            break
        piece = core
    return piece


def _nearest(place: float) -> int:
    return min(range(len(CENTRES)), key=lambda i: abs(CENTRES[i] - place))
