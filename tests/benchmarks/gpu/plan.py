"""What is measured, in order of worth: a run that is cut off has the most useful cells."""

from collections.abc import Collection

from tests.benchmarks.gpu import offline, stages
from tests.benchmarks.gpu.cell import COMPILED, EAGER, Cell
from tests.benchmarks.gpu.grid import Grid
from tests.benchmarks.gpu.shelf import Shelf

_SIZES = (256, 512, 768, 1024, 1536)
_ROWS = (1, 2, 4, 8, 16)
_COMPILED_SIZES = (1024, 512)  # compiling takes seconds for each shape
_COMPILED_ROWS = (1, 2, 4, 8)
_DECODE_SIZES = {512: (1, 4), 1024: (1, 4), 1536: (1,)}


def full_plan(shelf: Shelf, grid: Grid, models: Collection[str]) -> list[Cell]:
    flux_dev, schnell, medium, large = (
        shelf.architectures.models[name] for name in ("flux-dev", "flux-schnell", "sd3-medium", "sd3.5-large")
    )
    dev_mix, medium_mix, *other_mixes = offline.MIXES
    plan = [
        *grid.cells(flux_dev, EAGER, _SIZES, _ROWS),
        *grid.cells(medium, EAGER, _SIZES, _ROWS),
        *stages.cells(shelf, _DECODE_SIZES, image_size=1024),
        *offline.cells(shelf, dev_mix, EAGER),
        *grid.cells(flux_dev, COMPILED, _COMPILED_SIZES, _COMPILED_ROWS),
        *offline.cells(shelf, medium_mix, EAGER),
        *grid.cells(medium, COMPILED, _COMPILED_SIZES, _COMPILED_ROWS),
        *grid.cells(large, EAGER, _SIZES, _ROWS),
        *(cell for mix in other_mixes for cell in offline.cells(shelf, mix, EAGER)),
        # dev's architecture without its guidance embedder and with half its text.
        *grid.cells(schnell, EAGER, (512, 1024), (1, 4)),
        *grid.cells(large, COMPILED, _COMPILED_SIZES, _COMPILED_ROWS),
        *(cell for mix in offline.MIXES for cell in offline.cells(shelf, mix, COMPILED)),
    ]
    return _of_models(plan, models)


def tiny_plan(shelf: Shelf, grid: Grid, models: Collection[str]) -> list[Cell]:
    every = list(shelf.architectures.models.values())
    plan = [
        *(cell for model in every for cell in grid.cells(model, EAGER, (64, 128), (1, 2))),
        *stages.cells(shelf, {64: (1, 2)}, image_size=64),
        *(cell for mix in offline.TINY_MIXES for cell in offline.cells(shelf, mix, EAGER)),
        *(cell for model in every for cell in grid.cells(model, COMPILED, (64,), (1,))),
    ]
    return _of_models(plan, models)


def _of_models(plan: list[Cell], models: Collection[str]) -> list[Cell]:
    return [cell for cell in plan if cell.identity.get("model") in {*models, None}]
