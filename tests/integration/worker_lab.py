"""A worker around a real engine, queue and store, in this process."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import torch
from prometheus_client import CollectorRegistry

from app.catalog.catalog import Catalog
from app.jobs.queue import JobQueue
from app.jobs.schema import ImageJob, JobRecord, JobState
from app.jobs.store import ImageStore
from tests.conftest import make_job
from workers.engine.cost import CostModel
from workers.engine.engine import Engine
from workers.engine.pipeline import StepPipeline
from workers.engine.scheduler import Scheduler
from workers.metrics import WorkerMetrics
from workers.vitals import Vitals
from workers.worker import Worker, WorkerOptions

MODEL = "tiny-sd3"
ENDLESS = 1_000_000  # steps: more than any machine takes in a test
OPTIONS = WorkerOptions(
    worker_id="w1",
    version="test",
    device="cpu",
    max_images=8,
    lease_s=2.0,
    step_timeout_s=30.0,
    drain_timeout_s=5.0,
    encode_threads=1,
    usd_per_hour=0.0,
    store_patience_s=20.0,
    min_free_mib=0,
    revisions={MODEL: "1"},
    vitals=Vitals(torch.device("cpu"), CostModel()),
)


@dataclass
class Running:
    """A worker at work, and what it measures."""

    registry: CollectorRegistry
    stop: asyncio.Event
    task: asyncio.Task[None]

    def sample(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def running(
    queue: JobQueue,
    store: ImageStore,
    pipeline: StepPipeline,
    options: WorkerOptions = OPTIONS,
    *,
    preview_every_s: float | None = None,
    checkpoint_every_s: float | None = None,
) -> AsyncIterator[Running]:
    registry = CollectorRegistry()
    engine = Engine(
        {MODEL: pipeline},
        Scheduler(CostModel(), max_rows=16),
        time.monotonic,
        preview_every_s=preview_every_s,
        checkpoint_every_s=checkpoint_every_s,
    )
    worker = Worker(queue, store, engine, Catalog.load().only([MODEL]), WorkerMetrics(registry), options)
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    try:
        yield Running(registry, stop, task)
    finally:
        stop.set()
        await asyncio.wait([task])


async def wait_until(queue: JobQueue, job: ImageJob, seen: Callable[[JobRecord], bool]) -> JobRecord:
    for _ in range(500):
        record = await queue.read(job.tenant, job.id)
        if seen(record):
            return record
        await asyncio.sleep(0.02)
    raise TimeoutError(f"last seen: {record.state}, {record.progress}")


def in_state(state: JobState) -> Callable[[JobRecord], bool]:
    return lambda record: record.state is state


def numbered(number: int, **changes: object) -> ImageJob:
    return make_job(id=f"img_{number:032x}", width=64, height=64, max_sequence_length=32, **changes)
