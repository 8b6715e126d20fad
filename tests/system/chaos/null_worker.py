"""`python -m tests.system.chaos.null_worker STEP_MS FOLDER`: a real worker process around a model that only sleeps."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import structlog
import torch
from prometheus_client import CollectorRegistry

from app.catalog.catalog import Catalog
from app.jobs.logs import configure_logs
from app.jobs.store import open_store
from tests.system.chaos.null_pipeline import ShowingPipeline
from workers.engine.cost import CostModel
from workers.engine.pipeline import StepPipeline
from workers.engine.residency import Residency
from workers.metrics import WorkerMetrics
from workers.process import Loaded, build_worker, stop_signal
from workers.settings import WorkerSettings
from workers.worker import HungStepError

log = structlog.get_logger()


def run(make_pipeline: Callable[[float, Path], StepPipeline]) -> None:
    """Serve with pipelines made of what the command line says: seconds a step, and a file that tallies them."""
    settings, step_s, folder = WorkerSettings(), float(sys.argv[1]) / 1000, Path(sys.argv[2])
    try:
        asyncio.run(_serve(settings, lambda: make_pipeline(step_s, folder / settings.worker_id)))
    except HungStepError:
        os._exit(1)  # as `python -m workers` does


async def _serve(settings: WorkerSettings, make_pipeline: Callable[[], StepPipeline]) -> None:
    stop = stop_signal()
    configure_logs(settings.log_level)
    torch.set_num_threads(1)
    cards = Catalog.load().only(list(settings.model_folders))
    loaded = Loaded(
        torch.device("cpu"),
        {name: make_pipeline() for name in cards},
        Residency(dict.fromkeys(cards, 0), budget_bytes=None),
        CostModel(max_rows=settings.max_rows),
        dict.fromkeys(cards, "null"),
    )
    worker = build_worker(settings, cards, loaded, open_store(settings.store_url), WorkerMetrics(CollectorRegistry()))
    log.info("worker_ready", worker_id=settings.worker_id)
    await worker.run(stop)


if __name__ == "__main__":
    run(ShowingPipeline)
