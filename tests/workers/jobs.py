"""Requests without tensors, and machines of known cost, for the scheduler's tests."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from workers.engine.cost import CostModel, Stage
from workers.engine.scheduler import Priority, Scheduler, Work


class Size(NamedTuple):
    model: str = "flux"
    height: int = 1024
    width: int = 1024


A, B, SD3 = Size(), Size(height=512, width=512), Size("sd3")


@dataclass(eq=False)
class Job:
    name: str = "job"
    key: Size = A
    rows: int = 1
    arrival_s: float = 0.0
    num_inference_steps: int = 10
    remaining_steps: int = 10
    priority: Priority = Priority.NORMAL
    deadline_s: float | None = None


def free(rows: int) -> float:
    """A launch-bound machine: rows cost nothing."""
    return 1.0


def fair(rows: int) -> float:
    """A compute-bound machine: each row costs the same."""
    return 1.0 * rows


def knee(rows: int) -> float:
    """Three rows are free; from there on each costs two and a half steps."""
    return 1.0 + 2.5 * max(0, rows - 3)


def measured(curve: Callable[[int], float], keys: Sequence[Size] = (A, B, SD3)) -> CostModel:
    cost = CostModel(max_rows=16)
    for key in keys:
        for rows in range(1, 17):
            cost.observe(Stage.DENOISE, key, rows, curve(rows))
            cost.observe(Stage.VAE_DECODE, key, rows, 0.5 * curve(rows))
    return cost


def scheduler(curve: Callable[[int], float], max_rows: int = 8, **settings: float) -> Scheduler:
    return Scheduler(measured(curve), max_rows, **settings)


def names(work: Work[Job] | None) -> str:
    assert work is not None
    return " ".join(job.name for job in work.requests)


def take(work: Work[Job]) -> list[Job]:
    """Do the work; return who is finished."""
    if work.stage is Stage.VAE_DECODE:
        return work.requests
    for job in work.requests:
        job.remaining_steps -= 1
    return []
