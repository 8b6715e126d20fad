"""step-grid: what one step costs, over model, size, rows, eager and compiled."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import torch

from tests.benchmarks.gpu.architectures import Model
from tests.benchmarks.gpu.batches import step_batch
from tests.benchmarks.gpu.cell import COMPILED, Cell
from tests.benchmarks.gpu.flops import StepFlops
from tests.benchmarks.gpu.shelf import Shelf
from tests.benchmarks.gpu.timing import TARGET_S, measure

SECTION = "grid"
_BUILD_S = 10.0
_COMPILE_S = 30.0


class Grid:
    """Makes the grid's cells. Each learns from those before it how fast the device is."""

    def __init__(self, shelf: Shelf, step_flops: StepFlops, peak_flops: float) -> None:
        self._shelf = shelf
        self._step_flops = step_flops
        self._peak_flops = peak_flops
        self._flops_per_s = 0.3 * peak_flops

    def cells(self, model: Model, mode: str, sizes: Iterable[int], rows: Iterable[int]) -> list[Cell]:
        rows = tuple(rows)
        return [self._cell(model, mode, size, count) for size in sizes for count in rows]

    def _cell(self, model: Model, mode: str, size: int, rows: int) -> Cell:
        return Cell(
            section=SECTION,
            identity={"model": model.name, "height": size, "width": size, "rows": rows, "mode": mode},
            predict_s=lambda: self._predict_s(model, mode, size, rows),
            measure=lambda: self._measure(model, mode, size, rows),
        )

    def _predict_s(self, model: Model, mode: str, size: int, rows: int) -> float:
        step_s = self._step_flops(model, size, rows) / self._flops_per_s
        preparation_s = _BUILD_S if self._shelf.missing({model.transformer}) else 0.0
        if mode == COMPILED and self._shelf.device.type == "cuda":
            preparation_s += _COMPILE_S
        return preparation_s + 3 * step_s + max(step_s, TARGET_S)

    def _measure(self, model: Model, mode: str, size: int, rows: int) -> dict[str, Any]:
        device = self._shelf.device
        pipeline = self._shelf.step_pipeline(model, compiled=mode == COMPILED)
        memory: dict[str, int] = {}
        if device.type == "cuda":
            memory["resident_bytes"] = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
        with torch.inference_mode():
            batch = step_batch(self._shelf, model, pipeline, size, rows)
        timing = measure(lambda: pipeline.denoise(batch), device)
        if device.type == "cuda":
            memory["peak_bytes"] = torch.cuda.max_memory_allocated()
        flops = self._step_flops(model, size, rows)
        self._flops_per_s = flops / (timing.ms / 1000)
        return asdict(timing) | {
            "text_length": model.joint_length,
            "tflop": flops / 1e12,
            "mfu": self._flops_per_s / self._peak_flops,
            **memory,
        }
