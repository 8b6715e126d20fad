"""What workers count is what their clients have seen: images, steps, failures, cancellations, to the last one."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from app.jobs.logs import configure_logs
from app.jobs.queue import JobQueue
from app.jobs.schema import ErrorCode, ImageJob, JobRecord, JobState
from app.jobs.store import ImageStore, StoreError
from tests.integration import worker_lab
from tests.integration.worker_lab import ENDLESS, MODEL, Running, in_state, numbered, running, wait_until
from workers.engine.pipeline import StepPipeline

OPTIONS = replace(worker_lab.OPTIONS, lease_s=10.0)  # nothing here is about leases
TERMINAL = (JobState.COMPLETED, JobState.FAILED, JobState.CANCELED)


class Refusing(ImageStore):
    """A store that takes no picture of some jobs, as often as they say."""

    def __init__(self, real: ImageStore, refusals: Counter[str]) -> None:
        super().__init__(real._store)
        self._refusals = refusals

    async def put(self, path: str, data: bytes) -> None:
        _, job_id, *_ = path.split("/")
        if path.startswith("results/") and self._refusals[job_id] > 0:
            self._refusals[job_id] -= 1
            raise StoreError("no space left on device")
        await super().put(path, data)


@pytest.fixture
def queue(valkey: Redis) -> JobQueue:
    return JobQueue(valkey, lease_s=OPTIONS.lease_s)


async def over(queue: JobQueue, job: ImageJob) -> JobRecord:
    return await wait_until(queue, job, lambda record: record.state in TERMINAL)


def total(workers: list[Running], name: str, **labels: str) -> float:
    return sum(worker.sample(f"darkroom_{name}", **labels) for worker in workers)


async def test_two_workers_count_what_their_clients_saw(
    queue: JobQueue, store: ImageStore, pipeline: StepPipeline
) -> None:
    configure_logs("error")  # as the worker does: structlog's own console takes seconds to paint a traceback
    small = [numbered(i, n=1 + i % 3, num_inference_steps=2 + i, guidance_scale=1.0 + i % 2) for i in range(6)]
    large = numbered(10, num_inference_steps=3).model_copy(update={"width": 128, "height": 128})
    once, never = numbered(11, n=2, num_inference_steps=7), numbered(12, num_inference_steps=5)
    canceled = [numbered(20 + i, n=1 + i, num_inference_steps=ENDLESS) for i in range(2)]
    handed_back = numbered(30, num_inference_steps=ENDLESS)
    jobs = [*small, large, once, never, *canceled, handed_back]
    refusing = Refusing(store, Counter({once.id: 1, never.id: 99}))

    async with running(queue, refusing, pipeline, replace(OPTIONS, store_patience_s=0)) as first:
        for job in jobs:
            await queue.submit(job)
        for job in [*small, large]:
            await over(queue, job)
        for job in canceled:
            await wait_until(queue, job, lambda record: record.progress is not None and record.progress.step > 0)
            await queue.cancel(job.tenant, job.id)
        for job in [once, never, *canceled]:
            await over(queue, job)
    assert (await queue.read(handed_back.tenant, handed_back.id)).state is JobState.QUEUED
    async with running(queue, store, pipeline, OPTIONS) as second:
        await wait_until(queue, handed_back, lambda record: record.progress is not None and record.progress.step > 0)
        await queue.cancel(handed_back.tenant, handed_back.id)
        await wait_until(queue, handed_back, in_state(JobState.CANCELED))
        await asyncio.sleep(0.1)

    records = [await queue.read(job.tenant, job.id) for job in jobs]
    seen = Counter(record.state for record in records)
    images = [image for record in records if record.result is not None for image in record.result.images]
    workers = [first, second]

    assert seen == {JobState.COMPLETED: 8, JobState.FAILED: 1, JobState.CANCELED: 3}
    for status, code in ((JobState.COMPLETED, ""), (JobState.CANCELED, ""), (JobState.FAILED, "storage_failed")):
        assert total(workers, "jobs_finished_total", model=MODEL, status=status, code=code) == seen[status]
    assert total(workers, "job_retries_total", reason=ErrorCode.STORAGE_FAILED) == 1 + 2, "an attempt is no failure"
    sizes = Counter("128" if image.width == 128 else "64" for image in images)
    for size, count in sizes.items():
        assert total(workers, "images_generated_total", model=MODEL, size_bucket=size) == count
    assert total(workers, "pixels_generated_total") == sum(image.width * image.height for image in images)
    assert total(workers, "image_steps_count", model=MODEL) == len(images)
    assert total(workers, "image_steps_sum", model=MODEL) == sum(image.steps for image in images)
    for name in ("queue", "inference", "e2e"):
        assert total(workers, f"job_{name}_seconds_count", model=MODEL) == seen[JobState.COMPLETED]
    assert total(workers, "job_eta_error_ratio_count", model=MODEL) == seen[JobState.COMPLETED]
    e2e_s = total(workers, "job_e2e_seconds_sum", model=MODEL)
    parts_s = [total(workers, f"job_{name}_seconds_sum", model=MODEL) for name in ("queue", "inference")]
    assert e2e_s == pytest.approx(sum(parts_s))

    wasted = {
        reason: total(workers, "wasted_steps_total", reason=reason) for reason in ("canceled", "failed", "restarted")
    }
    assert wasted["failed"] == never.num_inference_steps, "its last attempt"
    assert wasted["restarted"] >= 2 * never.num_inference_steps
    assert wasted["canceled"] > 0
    taken = total(workers, "denoise_steps_total", model=MODEL)
    assert taken == sum(image.steps for image in images) + sum(wasted.values()), "every step is accounted for"
    assert total([second], "jobs_resumed_total") == 1

    assert total(workers, "worker_jobs_in_progress", model=MODEL) == total(workers, "worker_up") == 0
    busy = total(workers, "gpu_seconds_total", model=MODEL)
    assert total(workers, "denoise_step_seconds_sum", model=MODEL, size_bucket="64", rows="2") < busy
    assert total(workers, "slots_idle_seconds_total") > 0
