"""What a worker says of itself: how fast it is, and how full its device."""

from dataclasses import dataclass

import torch

from app.jobs.schema import StepTime
from workers.engine.cost import CostModel, Stage

_SHAPES_TOLD = 16


@dataclass(frozen=True, slots=True)
class Vitals:
    device: torch.device
    cost: CostModel

    def step_times(self) -> tuple[StepTime, ...]:
        """Measured denoising steps of the shapes that ran last."""
        return tuple(
            StepTime(model=shape.model, height=shape.height, width=shape.width, rows=rows, seconds=round(seconds, 6))
            for shape, medians in self.cost.measured(Stage.DENOISE, _SHAPES_TOLD).items()
            for rows, seconds in medians.items()
        )

    def memory_used_bytes(self) -> int | None:
        """Of a CUDA device, by this process; None elsewhere."""
        return torch.cuda.memory_allocated(self.device) if self.device.type == "cuda" else None
