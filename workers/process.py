"""What the process around a worker is made of, whatever draws its pictures."""

import asyncio
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

import torch

from app.catalog.catalog import Catalog
from app.jobs.queue import JobQueue
from app.jobs.scripts import connect
from app.jobs.store import ImageStore
from workers.engine.cost import CostModel
from workers.engine.engine import Engine
from workers.engine.pipeline import StepPipeline
from workers.engine.prompt_cache import PromptCache
from workers.engine.residency import Residency
from workers.engine.scheduler import Scheduler
from workers.metrics import WorkerMetrics
from workers.settings import WorkerSettings
from workers.vitals import Vitals
from workers.worker import Worker, WorkerOptions


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a worker draws with. revisions: model -> what its weights are."""

    device: torch.device
    pipelines: Mapping[str, StepPipeline]
    residency: Residency
    cost: CostModel
    revisions: Mapping[str, str]


def stop_signal() -> asyncio.Event:
    """Set by SIGTERM and by Ctrl-C: finish what is drawn, hand back the rest."""
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    return stop


def build_worker(
    settings: WorkerSettings, cards: Catalog, loaded: Loaded, store: ImageStore, metrics: WorkerMetrics
) -> Worker:
    """Put the worker of these settings together; its queue is connected to lazily."""
    prompts = PromptCache(settings.prompt_cache_mib * 1024**2)
    metrics.prompt_cache_bytes.set_function(lambda: prompts.size_bytes)
    engine = Engine(
        loaded.pipelines,
        Scheduler(loaded.cost, max_rows=settings.max_rows),
        time.monotonic,
        residency=loaded.residency,
        prompts=prompts,
        preview_every_s=settings.preview_every_s,
        checkpoint_every_s=settings.checkpoint_every_s,
    )
    return Worker(
        JobQueue(
            connect(settings.redis_url),
            lease_s=settings.lease_s,
            max_attempts=settings.max_attempts,
            max_crashes=settings.max_crashes,
        ),
        store,
        engine,
        cards,
        metrics,
        WorkerOptions(
            worker_id=settings.worker_id,
            version=version("darkroom-server"),
            device=str(loaded.device),
            max_images=settings.max_images,
            lease_s=settings.lease_s,
            step_timeout_s=settings.step_timeout_s,
            drain_timeout_s=settings.drain_timeout_s,
            encode_threads=settings.encode_threads,
            usd_per_hour=settings.gpu_usd_per_hour,
            store_patience_s=settings.store_patience_s,
            min_free_mib=settings.min_free_mib,
            revisions=loaded.revisions,
            vitals=Vitals(loaded.device, loaded.cost),
        ),
    )
