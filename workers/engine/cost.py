"""What a batch costs: the measured curve t(stage, key, rows), in seconds. Pure Python on plain data.

Each batch size of each shape keeps its last few measurements and is worth their median, so that a recompile or a page
fault moves nothing and a lasting change is learnt in half a window. Between measured sizes a curve is straight, beyond
them it goes on by its slope; a shape never measured borrows from the nearest shape of its model.
"""

from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterable, Mapping, Sequence
from enum import StrEnum
from math import log
from typing import Any, NamedTuple, Protocol, Self


class Stage(StrEnum):
    TEXT_ENCODE = "text_encode"
    DENOISE = "denoise"
    VAE_DECODE = "vae_decode"


class Shape(Hashable, Protocol):
    """What the cost of a batch depends on. Equal shapes share a curve."""

    @property
    def model(self) -> str: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...


class TableShape(NamedTuple):
    """A curve's place in a table. Sizes in pixels."""

    stage: Stage
    model: str
    height: int
    width: int


StepTable = Mapping[TableShape, Mapping[int, float]]
"""Seconds by rows, for each shape."""

WINDOW = 9
"""Measurements kept of one batch size. Their median withstands four wrong ones."""

SEED_WEIGHT = 4
"""A seed counts as so many measurements: it withstands an outlier and gives way to a majority."""

TOLERANCE = 0.03
"""A median that moved by less than this share changes no curve: decisions would only tremble."""

FORGET_AFTER = 2000
"""A batch size not run in so many measurements of its curve is forgotten. Else one that was slow for a while would be
shunned from then on, and never be measured again."""

PRIOR_S_PER_MEGAPIXEL = {Stage.TEXT_ENCODE: 0.02, Stage.DENOISE: 0.1, Stage.VAE_DECODE: 0.1}
"""What the first row takes where nothing is known of a model. Only ratios matter, and only until it has run once."""

PRIOR_FURTHER_ROW = 0.5
"""What a further row costs, in first rows, until it is known. Hopeful on purpose: too hopeful is found out by trying,
too gloomy never."""

CLOCK_TICK_S = 1e-9
"""The least that anything takes: a coarse clock may see no time pass, and rates are shares of a time."""

MAX_CURVES = 128
"""Curves remembered, those measured last: whoever asks for ever new sizes must fill neither memory nor time."""

MEGAPIXEL = 1024 * 1024

TEXT_ENCODE_SIZE = (1024, 1024)
"""Where a table has the text encoder's rows: they depend on no size."""

Knots = list[tuple[float, float]]
"""Points of a curve, (rows, seconds), in the order of their rows. A borrowed curve's rows may be fractions."""


def step_table(entries: Iterable[Mapping[str, Any]]) -> StepTable:
    """Build a table from JSON objects with model, height, width, rows, ms and stage (denoise where it is left out)."""
    table: dict[TableShape, dict[int, float]] = {}
    for entry in entries:
        stage = Stage(entry.get("stage", Stage.DENOISE))
        shape = TableShape(stage, str(entry["model"]), int(entry["height"]), int(entry["width"]))
        table.setdefault(shape, {})[int(entry["rows"])] = float(entry["ms"]) / 1000
    return table


class CostModel:
    """Learns while it is asked. The same measurements in the same order give the same answers."""

    def __init__(self, seed: StepTable | None = None, max_rows: int = 64) -> None:
        """Start from `seed`, what was measured beforehand. Curves reach to `max_rows`."""
        self.max_rows = max_rows
        self._seeds = {shape: _History.seeded(shape, table) for shape, table in (seed or {}).items()}
        self._histories: OrderedDict[tuple[Stage, Hashable], _History] = OrderedDict()
        self._curves: dict[tuple[Stage, str], dict[Hashable, Sequence[float]]] = {}

    def observe(self, stage: Stage, key: Shape, rows: int, seconds: float) -> None:
        """Learn that a batch of this many rows took so long."""
        cell = (stage, _place(stage, key))
        history = self._histories.get(cell)
        if history is None:
            shape = _table_shape(stage, key)
            history = self._histories[cell] = _History.seeded(
                shape, self._seeds[shape].medians() if shape in self._seeds else {}
            )
            if len(self._histories) > MAX_CURVES:
                self._histories.popitem(last=False)
        self._histories.move_to_end(cell)
        if history.observe(rows, max(seconds, CLOCK_TICK_S)):
            # Other shapes of the model may have borrowed from this one.
            self._curves.pop((stage, key.model), None)

    def seconds(self, stage: Stage, key: Shape, rows: int) -> float:
        """What a batch is expected to take. A VAE's rows are images, a text encoder's are prompts."""
        return self.curve(stage, key)[rows]

    def curve(self, stage: Stage, key: Shape) -> Sequence[float]:
        """Seconds by rows, from 0 rows in no time to max_rows; never falling."""
        curves = self._curves.setdefault((stage, key.model), {})
        place = _place(stage, key)
        curve = curves.get(place)
        if curve is None:
            if len(curves) >= MAX_CURVES:
                curves.clear()
            curve = curves[place] = self._draw(self._histories.get((stage, place)), _table_shape(stage, key))
        return curve

    def measured(self, stage: Stage, most: int) -> StepTable:
        """What was measured or seeded of a stage, for the `most` shapes measured last. Any thread may ask."""
        histories = (*self._seeds.values(), *self._histories.values())
        known = {history.shape: history for history in histories if history.shape.stage is stage}
        return {shape: dict(history.medians()) for shape, history in list(known.items())[-most:]}

    def _draw(self, history: "_History | None", shape: TableShape) -> Sequence[float]:
        own = history.knots() if history else []
        if len(own) > 1:
            return _line(own, self.max_rows)
        guess = _line(self._borrow(history, shape), self.max_rows)
        if not own:
            return guess
        # One measured size says how fast the shape is; the guess, how it goes on from there.
        ((rows, seconds),) = own
        scale = seconds / guess[int(rows)]
        return tuple(scale * value for value in guess)

    def _borrow(self, history: "_History | None", shape: TableShape) -> Knots:
        """The nearest known shape's knots. As many pixels in one forward take as long, in however many images."""
        pixels = shape.height * shape.width
        donors = [
            (abs(log(known.pixels / pixels)), known)
            for known in (*self._histories.values(), *self._seeds.values())
            if known is not history and known.shape[:2] == shape[:2]
        ]
        if not donors:
            return _prior(1, PRIOR_S_PER_MEGAPIXEL[shape.stage] * pixels / MEGAPIXEL)
        _, nearest = min(donors, key=lambda donor: donor[0])
        knots = nearest.knots()
        if len(knots) == 1:
            knots = _prior(*knots[0])
        return [(rows * nearest.pixels / pixels, seconds) for rows, seconds in knots]


class _History:
    """The last measurements of one curve."""

    def __init__(self, shape: TableShape) -> None:
        self.shape = shape
        self.pixels = shape.height * shape.width
        self._windows: dict[int, deque[float]] = {}
        self._seen: dict[int, int] = {}
        self._drawn: dict[int, float] = {}
        self._count = 0

    @classmethod
    def seeded(cls, shape: TableShape, seconds_by_rows: Mapping[int, float]) -> Self:
        history = cls(shape)
        for rows, seconds in seconds_by_rows.items():
            history._windows[rows] = deque([seconds] * SEED_WEIGHT, maxlen=WINDOW)
            history._seen[rows] = 0
            history._drawn[rows] = seconds
        return history

    def observe(self, rows: int, seconds: float) -> bool:
        """Take a measurement; tell whether the curve has moved."""
        self._count += 1
        self._seen[rows] = self._count
        window = self._windows.get(rows)
        if window is None:
            window = self._windows[rows] = deque(maxlen=WINDOW)
        window.append(seconds)
        moved = self._count % FORGET_AFTER == 0 and self._forget()
        median, drawn = _median(window), self._drawn.get(rows)
        if drawn is None or abs(median - drawn) > TOLERANCE * drawn:
            self._drawn[rows] = median
            moved = True
        return moved

    def medians(self) -> Mapping[int, float]:
        return self._drawn

    def knots(self) -> Knots:
        """Medians, smoothed so that more rows never take less time: pool adjacent violators, weighted by evidence."""
        pools: list[tuple[float, float, list[int]]] = []
        for rows in sorted(self._drawn):
            seconds, weight, members = self._drawn[rows], float(len(self._windows[rows])), [rows]
            while pools and pools[-1][0] > seconds:
                other_seconds, other_weight, other_members = pools.pop()
                seconds = (seconds * weight + other_seconds * other_weight) / (weight + other_weight)
                weight += other_weight
                members = [*other_members, *members]
            pools.append((seconds, weight, members))
        return [(rows, seconds) for seconds, _, members in pools for rows in members]

    def _forget(self) -> bool:
        old = [rows for rows, seen in self._seen.items() if seen <= self._count - FORGET_AFTER]
        for rows in old:
            del self._windows[rows], self._seen[rows], self._drawn[rows]
        return bool(old)


def _place(stage: Stage, key: Shape) -> Hashable:
    # A text encoder sees no pixels: a model's prompts share one curve.
    return key.model if stage is Stage.TEXT_ENCODE else key


def _table_shape(stage: Stage, key: Shape) -> TableShape:
    if stage is Stage.TEXT_ENCODE:
        return TableShape(stage, key.model, *TEXT_ENCODE_SIZE)
    return TableShape(stage, key.model, key.height, key.width)


def _median(window: Sequence[float] | deque[float]) -> float:
    """The lower median: of two measurements, the first of which may be a compilation, the quicker is the truer."""
    return sorted(window)[(len(window) - 1) // 2]


def _prior(rows: float, seconds: float) -> Knots:
    """A point and the one after it."""
    first = seconds / (1 + PRIOR_FURTHER_ROW * (rows - 1))
    return [(rows, seconds), (rows + 1, seconds + PRIOR_FURTHER_ROW * first)]


def _line(knots: Knots, max_rows: int) -> Sequence[float]:
    """Seconds for 0 to max_rows rows through two or more knots."""
    at = [rows for rows, _ in knots]
    (first_rows, first_s), (next_rows, next_s) = knots[:2]
    slope_before = (next_s - first_s) / (next_rows - first_rows)
    last_rows, last_s = knots[-1]
    # The slope behind the last knot is taken over half of the curve: between two neighbours it would be mostly noise.
    half_rows, half_s = knots[min(max(bisect_right(at, last_rows / 2) - 1, 0), len(knots) - 2)]
    slope_after = (last_s - half_s) / (last_rows - half_rows)
    curve = [0.0]
    for rows in range(1, max_rows + 1):
        if rows <= first_rows:
            # Not below a fair share either: no measured curve makes a batch dearer than its rows one by one.
            curve.append(max(first_s - slope_before * (first_rows - rows), first_s * rows / first_rows))
        elif rows >= last_rows:
            curve.append(last_s + slope_after * (rows - last_rows))
        else:
            i = bisect_right(at, rows)
            (left, left_s), (right, right_s) = knots[i - 1], knots[i]
            curve.append(left_s + (right_s - left_s) * (rows - left) / (right - left))
    return tuple(curve)
