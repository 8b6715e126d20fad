"""The worker's shell around a real engine, queue and store."""

import asyncio
import hashlib
import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from PIL import Image
from redis.asyncio import Redis

from app.jobs.keys import PREFIX
from app.jobs.queue import JobQueue
from app.jobs.schema import ErrorCode, JobState, OutputFormat, Stage
from app.jobs.store import ImageStore, StoreError
from tests.integration.worker_lab import ENDLESS, MODEL, OPTIONS, in_state, numbered, running, wait_until
from tests.workers.requests import make_spec
from workers.engine.cost import CostModel
from workers.engine.engine import Engine
from workers.engine.pipeline import StepPipeline
from workers.engine.request import DenoiseRequest
from workers.engine.scheduler import Scheduler
from workers.worker import HungStepError


async def test_a_job_becomes_the_picture_that_the_engine_draws(
    queue: JobQueue, store: ImageStore, pipeline: StepPipeline
) -> None:
    job = numbered(1, n=3, num_inference_steps=5)
    async with running(queue, store, pipeline) as worker:
        await queue.submit(job)
        record = await wait_until(queue, job, in_state(JobState.COMPLETED))
        assert worker.sample("darkroom_images_generated_total", model=MODEL, size_bucket="64") == 3
        assert worker.sample("darkroom_image_steps_sum", model=MODEL) == 15
        assert worker.sample("darkroom_stage_seconds_count", model=MODEL, stage=Stage.VAE_DECODE) == 3
    assert record.result is not None
    assert [image.seed for image in record.result.images] == [42, 43, 44]
    assert record.result.denoise_steps == 15
    assert record.result.largest_batch == 6
    for image in record.result.images:
        data = await store.get(image.path)
        assert hashlib.sha256(data).hexdigest() == image.sha256
        assert len(data) == image.size_bytes


async def test_progress_is_seen_while_it_develops(queue: JobQueue, store: ImageStore, pipeline: StepPipeline) -> None:
    job = numbered(1, num_inference_steps=ENDLESS)
    async with running(queue, store, pipeline):
        await queue.submit(job)
        record = await wait_until(queue, job, lambda r: r.progress is not None and r.progress.step > 0)
        assert record.progress is not None
        assert (record.progress.stage, record.progress.total_steps) == (Stage.DENOISE, ENDLESS)


async def test_a_canceled_job_stops_and_its_mate_finishes(
    queue: JobQueue, store: ImageStore, pipeline: StepPipeline
) -> None:
    gone, mate = numbered(1, num_inference_steps=ENDLESS), numbered(2, num_inference_steps=60)
    async with running(queue, store, pipeline) as worker:
        await queue.submit(gone)
        await queue.submit(mate)
        await wait_until(queue, gone, lambda record: record.progress is not None and record.progress.step > 0)
        await queue.cancel(gone.tenant, gone.id)
        await wait_until(queue, gone, in_state(JobState.CANCELED))
        await wait_until(queue, mate, in_state(JobState.COMPLETED))
        for _ in range(100):
            if worker.sample("darkroom_worker_jobs_in_progress", model=MODEL) == 0:
                break
            await asyncio.sleep(0.02)
        assert worker.sample("darkroom_worker_jobs_in_progress", model=MODEL) == 0, "it must not draw on"


async def test_on_its_way_out_it_hands_back_what_is_unfinished(
    queue: JobQueue, store: ImageStore, pipeline: StepPipeline
) -> None:
    job = numbered(1, num_inference_steps=ENDLESS)
    async with running(queue, store, pipeline):
        await queue.submit(job)
        await wait_until(queue, job, in_state(JobState.IN_PROGRESS))
    record = await queue.read(job.tenant, job.id)
    assert (record.state, record.attempts, record.crashes) == (JobState.QUEUED, 0, 0)
    assert (await queue.stats()).workers == ()


async def test_a_lease_outlives_its_first_length(queue: JobQueue, store: ImageStore, pipeline: StepPipeline) -> None:
    job = numbered(1, num_inference_steps=ENDLESS)
    async with running(queue, store, pipeline):
        await queue.submit(job)
        await wait_until(queue, job, in_state(JobState.IN_PROGRESS))
        await asyncio.sleep(2.5 * OPTIONS.lease_s)
        record = await queue.read(job.tenant, job.id)
        assert (record.state, record.attempts, record.crashes) == (JobState.IN_PROGRESS, 1, 0)


async def test_pictures_do_not_wait_behind_other_blocking_work(
    queue: JobQueue, store: ImageStore, pipeline: StepPipeline
) -> None:
    busy = threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    blocked = loop.run_in_executor(None, busy.wait)
    jobs = [numbered(number, n=2, output_format=kind) for number, kind in enumerate(OutputFormat)]
    try:
        async with running(queue, store, pipeline):
            for job in jobs:
                await queue.submit(job)
            for job in jobs:
                await wait_until(queue, job, in_state(JobState.COMPLETED))
            busy.set()
    finally:
        busy.set()
        await blocked


async def test_the_encoding_threads_end_with_the_worker(
    queue: JobQueue, store: ImageStore, pipeline: StepPipeline
) -> None:
    job = numbered(1)
    async with running(queue, store, pipeline):
        await queue.submit(job)
        await wait_until(queue, job, in_state(JobState.COMPLETED))
        encoders = [thread for thread in threading.enumerate() if thread.name.startswith("encode")]
        assert len(encoders) == OPTIONS.encode_threads
    for thread in encoders:
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()


class FullStore(ImageStore):
    """A disk with no room left, for as many pictures as it is told."""

    failures = 1

    async def put(self, path: str, data: bytes) -> None:
        if self.failures and path.startswith("results/"):
            self.failures -= 1
            raise StoreError("no space left on device")
        await super().put(path, data)


async def test_a_picture_that_cannot_be_stored_is_kept_until_it_can(
    queue: JobQueue, store: ImageStore, pipeline: StepPipeline
) -> None:
    full = FullStore(store._store)
    full.failures = 1_000_000
    first, second = numbered(1), numbered(2)
    options = replace(OPTIONS, lease_s=1.0)
    async with running(queue, full, pipeline, options) as worker:
        await queue.submit(first)
        await wait_until(queue, first, lambda r: r.progress is not None and r.progress.stage is Stage.STORE)
        await queue.submit(second)
        await asyncio.sleep(2.5 * options.lease_s)
        assert (await queue.read(first.tenant, first.id)).state is JobState.IN_PROGRESS
        assert (await queue.read(second.tenant, second.id)).state is JobState.QUEUED, "nothing new is claimed"
        full.failures = 0
        for job in (first, second):
            record = await wait_until(queue, job, in_state(JobState.COMPLETED))
            assert (record.attempts, record.crashes) == (1, 0)
        assert worker.sample("darkroom_denoise_steps_total", model=MODEL) == 2 * 4, "nothing is drawn twice"


async def test_a_worker_leaves_the_jobs_of_a_full_disk_in_the_queue(
    queue: JobQueue, store: ImageStore, pipeline: StepPipeline
) -> None:
    job = numbered(1)
    async with running(queue, store, pipeline, replace(OPTIONS, min_free_mib=10**9)):
        await queue.submit(job)
        await asyncio.sleep(1.5)
        assert (await queue.read(job.tenant, job.id)).state is JobState.QUEUED


async def test_jobs_of_a_newer_version_do_not_hold_up_those_behind_them(
    queue: JobQueue, valkey: Redis, store: ImageStore, pipeline: StepPipeline
) -> None:
    jobs = [numbered(number, num_inference_steps=1) for number in range(13)]
    for job in jobs:
        await queue.submit(job)
    *newer, ours = jobs
    for job in newer:
        spec = json.loads(str(await valkey.hget(PREFIX + "job:" + job.id, "spec")))
        await valkey.hset(PREFIX + "job:" + job.id, "spec", json.dumps({**spec, "style": "film noir"}))
    async with running(queue, store, pipeline):
        await wait_until(queue, ours, in_state(JobState.COMPLETED))
        assert (await queue.stats()).delayed == len(newer), "it took so long that they are back"


async def test_a_picture_that_cannot_be_stored_for_too_long_is_drawn_again(
    queue: JobQueue, store: ImageStore, pipeline: StepPipeline
) -> None:
    job = numbered(1)
    async with running(queue, FullStore(store._store), pipeline, replace(OPTIONS, store_patience_s=0)) as worker:
        await queue.submit(job)
        record = await wait_until(queue, job, in_state(JobState.COMPLETED))
        assert worker.sample("darkroom_job_retries_total", reason=ErrorCode.STORAGE_FAILED) == 1
    assert record.attempts == 2


async def test_a_hung_step_ends_the_worker(queue: JobQueue, store: ImageStore, pipeline: StepPipeline) -> None:
    """With no patience at all, the first look during a step finds it hung."""
    job = numbered(1, num_inference_steps=ENDLESS)
    async with running(queue, store, pipeline, replace(OPTIONS, step_timeout_s=0.0)) as worker:
        await queue.submit(job)
        await asyncio.wait([worker.task], timeout=10)
        with pytest.raises(HungStepError, match=r"no step finished in 0\.0 s"):
            worker.task.result()
    # Not handed back: the lease must run out, so that a job which hangs devices is counted a crash each time.
    assert (await queue.read(job.tenant, job.id)).state is JobState.IN_PROGRESS
    for _ in range(3):  # as a gateway does: when nobody ticks, the queue is thought to have been away
        await queue.tick()
        await asyncio.sleep(OPTIONS.lease_s / 2)
    await queue.tick()
    assert (await queue.read(job.tenant, job.id)).crashes == 1


async def test_it_draws_what_the_spec_says(queue: JobQueue, store: ImageStore, pipeline: StepPipeline) -> None:
    """The same picture comes from the worker and from an engine of one's own."""
    job = numbered(1, seed=7, num_inference_steps=3, prompt="a small red ring")
    engine = Engine({MODEL: pipeline}, Scheduler(CostModel(), max_rows=2), clock=lambda: 0.0)
    engine.admit([DenoiseRequest("own", make_spec(), arrival_s=0.0)])
    own = next(drawn for _ in range(4) for drawn in engine.step().drawn).pixels
    async with running(queue, store, pipeline):
        await queue.submit(job)
        record = await wait_until(queue, job, in_state(JobState.COMPLETED))
    assert record.result is not None
    assert png_bytes(await store.get(record.result.images[0].path)) == own.numpy().tobytes()


def png_bytes(data: bytes) -> bytes:
    return Image.open(io.BytesIO(data)).tobytes()
