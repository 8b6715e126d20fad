"""Requests drawn by the engine, and how near two pictures are."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from tests.workers.requests import flat_cost
from workers.engine.engine import Engine
from workers.engine.pipeline import StepPipeline
from workers.engine.report import Report
from workers.engine.request import DenoiseRequest, ImageSpec
from workers.engine.residency import Residency
from workers.engine.scheduler import Scheduler

NEAR_DB = 40.0
"""Of what bfloat16 rounds otherwise in a batch than alone, nobody sees a trace: on average, under 3 of 255."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """pixels: (height, width, 3) uint8 of each request, in the order given."""

    pixels: list[Tensor]
    reports: list[Report]


def make_engine(
    pipelines: Mapping[str, StepPipeline],
    max_rows: int = 16,
    residency: Residency | None = None,
    checkpoint_every_s: float | None = None,
) -> Engine:
    """Whoever may share a forward does: rows are thought to be free."""
    return Engine(
        pipelines,
        Scheduler(flat_cost(*pipelines), max_rows=max_rows),
        time.monotonic,
        residency=residency,
        checkpoint_every_s=checkpoint_every_s,
    )


def admit(engine: Engine, specs: Sequence[ImageSpec]) -> list[DenoiseRequest]:
    requests = [DenoiseRequest(id=str(i), spec=spec, arrival_s=time.monotonic()) for i, spec in enumerate(specs)]
    assert not engine.admit(requests).failed
    return requests


def draw(engine: Engine, specs: Sequence[ImageSpec]) -> Outcome:
    """Draw all of them together. Raises what went wrong with one."""
    return finish(engine, admit(engine, specs))


def finish(engine: Engine, requests: Sequence[DenoiseRequest]) -> Outcome:
    reports = []
    while len(engine):
        reports.append(engine.step())
    for failed in (failed for report in reports for failed in report.failed):
        raise RuntimeError(f"request {failed.request.id} failed: {failed.reason}") from failed.cause
    pixels = {drawn.request.id: drawn.pixels for report in reports for drawn in report.drawn}
    return Outcome([pixels[request.id] for request in requests], reports)


def psnr_db(pixels: Tensor, others: Tensor) -> float:
    """Peak signal-to-noise ratio of uint8 pixels; infinite for equal ones."""
    error = float((pixels.double() - others.double()).square().mean())
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)
