"""Step-time tables for the simulator: what was measured, and formulas for what was not."""

import json
from collections.abc import Callable
from pathlib import Path

from workers.engine.cost import MEGAPIXEL, TEXT_ENCODE_SIZE, Stage, StepTable, TableShape, step_table
from workers.step_times.table import seed_table

MODEL = "flux-dev"
MEASURED = "nvidia-h100-80gb-hbm3"
NATIVE = 1024
MAX_ROWS = 16

# One row of flux-dev on an H200 at 790 TFLOP/s, of which three quarters are reached. Side in pixels -> milliseconds.
ROOFLINE_MS = {256: 13.1, 512: 27.2, 768: 53.1, 1024: 94.2, 1536: 243.0}
REACHED = 0.94 / 0.75
VAE_DECODE_MS_PER_MEGAPIXEL = 90.0  # published for flux-dev on an H100
TEXT_ENCODE_MS = 10.0  # 512 tokens through T5-XXL's encoder are 4.9 TFLOP, at the same share of the roofline


def _formula(step_ms: Callable[[float, int], float]) -> StepTable:
    """step_ms: roofline of one row in ms, rows -> ms."""
    table: dict[TableShape, dict[int, float]] = {}
    every = range(1, MAX_ROWS + 1)
    for side, roofline_ms in ROOFLINE_MS.items():
        decode_ms = VAE_DECODE_MS_PER_MEGAPIXEL * side * side / MEGAPIXEL
        table[TableShape(Stage.DENOISE, MODEL, side, side)] = {r: step_ms(roofline_ms, r) / 1000 for r in every}
        table[TableShape(Stage.VAE_DECODE, MODEL, side, side)] = {r: decode_ms * r / 1000 for r in every}
    encode = TableShape(Stage.TEXT_ENCODE, MODEL, *TEXT_ENCODE_SIZE)
    table[encode] = {rows: TEXT_ENCODE_MS * rows / 1000 for rows in every}
    return table


FORMULAS: dict[str, Callable[[], StepTable]] = {
    # A launch takes 8 ms compiled and 45 ms eager; a forward takes that, or its arithmetic if that is more.
    "flux-dev-h200": lambda: _formula(lambda ms, rows: max(8.0, rows * ms * REACHED)),
    "flux-dev-h200-eager": lambda: _formula(lambda ms, rows: max(45.0, rows * ms * REACHED)),
    # What if further rows cost a seventh of the first: 4 rows have 2.8 times the throughput, as published at 512x512.
    "cheap-rows": lambda: _formula(lambda ms, rows: ms * REACHED * (6 + rows) / 7),
}


def load_table(name: str) -> StepTable:
    """A formula or a measured GPU by name, or a JSON file: [{"model", "height", "width", "rows", "ms", "stage"}, ...].

    stage is optional. A file without the decoder's or the text encoder's times leaves those to the cost model's guess.
    """
    if name in FORMULAS:
        return FORMULAS[name]()
    return seed_table(name) or step_table(json.loads(Path(name).read_text()))
