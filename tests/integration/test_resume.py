"""Half-developed pictures outlive their worker, and can be watched on the way."""

import asyncio
import io
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from obstore.store import LocalStore
from PIL import Image
from structlog.testing import capture_logs
from torch import Tensor

from app.jobs.queue import JobQueue, Verdict
from app.jobs.schema import ImageJob, JobRecord, JobState
from app.jobs.store import ImageNotStoredError, ImageStore, checkpoint_path, preview_path
from tests.integration.worker_lab import ENDLESS, MODEL, OPTIONS, in_state, numbered, running, wait_until
from workers.engine.batch import DenoiseBatch
from workers.engine.engine import Engine
from workers.engine.pipeline import StepPipeline
from workers.engine.report import Report
from workers.worker import HungStepError

STEPS = 100


def beyond(step: int) -> Callable[[JobRecord], bool]:
    return lambda record: record.progress is not None and record.progress.step > step


async def is_stored(store: ImageStore, path: str) -> bool:
    try:
        await store.get(path)
    except ImageNotStoredError:
        return False
    return True


async def until_stored(store: ImageStore, path: str) -> bytes:
    for _ in range(500):
        if await is_stored(store, path):
            return await store.get(path)
        await asyncio.sleep(0.02)
    raise TimeoutError(path)


async def bytes_of(store: ImageStore, record: JobRecord) -> bytes:
    assert record.result is not None
    return await store.get(record.result.images[0].path)


async def uninterrupted(queue: JobQueue, store: ImageStore, pipeline: StepPipeline) -> bytes:
    job = numbered(99, num_inference_steps=STEPS)
    async with running(queue, store, pipeline):
        await queue.submit(job)
        return await bytes_of(store, await wait_until(queue, job, in_state(JobState.COMPLETED)))


async def finish(queue: JobQueue, store: ImageStore, pipeline: StepPipeline, job: ImageJob) -> tuple[bytes, float]:
    """The job's bytes from a second worker, and how many steps that one took."""
    async with running(queue, store, pipeline) as second:
        record = await wait_until(queue, job, in_state(JobState.COMPLETED))
        assert second.sample("darkroom_jobs_resumed_total") == 1
        assert record.result is not None
        assert record.result.images[0].steps == STEPS
        return await bytes_of(store, record), second.sample("darkroom_denoise_steps_total", model=MODEL)


async def test_a_worker_that_stops_saves_what_the_next_one_goes_on_with(
    queue: JobQueue, store: ImageStore, pipeline: StepPipeline
) -> None:
    expected = await uninterrupted(queue, store, pipeline)
    job = numbered(1, num_inference_steps=STEPS)
    async with running(queue, store, pipeline) as first:
        await queue.submit(job)
        await wait_until(queue, job, beyond(10))
    done = first.sample("darkroom_denoise_steps_total", model=MODEL)
    assert (await queue.read(job.tenant, job.id)).state is JobState.QUEUED

    with capture_logs() as lines:
        data, steps = await finish(queue, store, pipeline, job)
    assert data == expected
    told = [(line["job_id"], line["image"], line["step"]) for line in lines if line["event"] == "job_resumed"]
    assert told == [(job.id, 0, done)]
    assert done + steps == STEPS, "no step was taken twice"
    assert not await is_stored(store, checkpoint_path(job.id, 0)), "nothing is left of it"


async def test_after_a_crash_it_goes_on_from_the_last_checkpoint(
    queue: JobQueue, store: ImageStore, pipeline: StepPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = await uninterrupted(queue, store, pipeline)
    job = numbered(1, num_inference_steps=STEPS)
    async with running(queue, store, pipeline, checkpoint_every_s=0.05) as first:
        await queue.submit(job)
        await wait_until(queue, job, beyond(10))
        await until_stored(store, checkpoint_path(job.id, 0))
        # It is as if it had been killed: nothing more of it is heard, saved or handed back.
        with monkeypatch.context() as dead:
            dead.setattr(JobQueue, "release", _silence)
            dead.setattr(JobQueue, "renew", _silence)
            dead.setattr(JobQueue, "complete", _silence)
            dead.setattr(Engine, "save", Report)
            first.stop.set()
            await asyncio.wait([first.task])
    await asyncio.sleep(2.1)  # its lease ends
    await queue.tick()
    data, steps = await finish(queue, store, pipeline, job)
    assert data == expected
    assert steps < STEPS, "it did not begin anew"


async def _silence(*_: object) -> list[object]:
    return []


class Hanging:
    """A real pipeline whose forwards never return once `hangs` is set, as on a device that is stuck."""

    def __init__(self, real: StepPipeline) -> None:
        self._real = real
        self.hangs = threading.Event()
        self.released = threading.Event()

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    def denoise(self, batch: DenoiseBatch) -> Tensor:
        if self.hangs.is_set():
            self.released.wait()
        return self._real.denoise(batch)


async def test_after_a_hung_step_others_finish_with_the_same_bytes(
    queue: JobQueue, store: ImageStore, pipeline: StepPipeline
) -> None:
    expected = await uninterrupted(queue, store, pipeline)
    jobs = [numbered(i, num_inference_steps=STEPS) for i in (1, 2)]
    stuck = Hanging(pipeline)
    options = replace(OPTIONS, step_timeout_s=0.5, drain_timeout_s=0.1)
    async with running(queue, store, cast(StepPipeline, stuck), options, checkpoint_every_s=0.05) as first:
        for job in jobs:
            await queue.submit(job)
        for job in jobs:
            await until_stored(store, checkpoint_path(job.id, 0))
        stuck.hangs.set()
        await asyncio.wait([first.task], timeout=10)
        with pytest.raises(HungStepError, match="no step finished"):
            first.task.result()
    await asyncio.sleep(OPTIONS.lease_s + 0.1)  # it handed nothing back: its leases end
    await queue.tick()
    async with running(queue, store, pipeline) as second:
        records = [await wait_until(queue, job, in_state(JobState.COMPLETED)) for job in jobs]
        assert second.sample("darkroom_jobs_resumed_total") == 2
    stuck.released.set()
    assert [await bytes_of(store, record) for record in records] == [expected, expected]


async def test_a_checkpoint_of_something_else_is_ignored(
    queue: JobQueue, store: ImageStore, pipeline: StepPipeline
) -> None:
    expected = await uninterrupted(queue, store, pipeline)
    job = numbered(1, num_inference_steps=STEPS)
    async with running(queue, store, pipeline):
        await queue.submit(job)
        await wait_until(queue, job, beyond(10))
    path = checkpoint_path(job.id, 0)
    await store.put(path, (await store.get(path))[:-1] + b"?")
    async with running(queue, store, pipeline) as second:
        record = await wait_until(queue, job, in_state(JobState.COMPLETED))
        assert second.sample("darkroom_jobs_resumed_total") == 0
    assert await bytes_of(store, record) == expected


async def test_a_picture_can_be_watched_until_it_is_done(
    queue: JobQueue, store: ImageStore, pipeline: StepPipeline
) -> None:
    job = numbered(1, num_inference_steps=ENDLESS)
    async with running(queue, store, pipeline, preview_every_s=0.05, checkpoint_every_s=0.05):
        await queue.submit(job)
        preview = Image.open(io.BytesIO(await until_stored(store, preview_path(job.id, 0))))
        assert preview.format == "JPEG"
        assert preview.size == (job.width // 8, job.height // 8)
        await until_stored(store, checkpoint_path(job.id, 0))
        await queue.cancel(job.tenant, job.id)
        for path in (preview_path(job.id, 0), checkpoint_path(job.id, 0)):
            for _ in range(200):
                if not await is_stored(store, path):
                    break
                await asyncio.sleep(0.02)
            assert not await is_stored(store, path), "what is canceled leaves nothing"


class SlowStore(ImageStore):
    """A store that takes its time with what is unfinished."""

    async def put(self, path: str, data: bytes) -> None:
        if not path.startswith("results/"):
            await asyncio.sleep(0.3)
        await super().put(path, data)


async def test_what_is_on_its_way_to_a_slow_store_does_not_outlive_its_job(
    queue: JobQueue, pipeline: StepPipeline, tmp_path: Path
) -> None:
    store = SlowStore(LocalStore(tmp_path))
    job = numbered(1, num_inference_steps=ENDLESS)
    async with running(queue, store, pipeline, preview_every_s=0.01, checkpoint_every_s=0.01):
        await queue.submit(job)
        await until_stored(store, preview_path(job.id, 0))
        await queue.cancel(job.tenant, job.id)
        await asyncio.sleep(2.0)  # several puts were waiting
    assert not await is_stored(store, preview_path(job.id, 0))
    assert not await is_stored(store, checkpoint_path(job.id, 0))


async def test_what_another_worker_may_go_on_with_is_left_alone(
    queue: JobQueue, store: ImageStore, pipeline: StepPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that hears only when it is done that the job is no longer its own."""

    async def lost(*_: object) -> Verdict:
        return Verdict.LOST

    monkeypatch.setattr(JobQueue, "complete", lost)
    job = numbered(1, num_inference_steps=STEPS)
    async with running(queue, store, pipeline, checkpoint_every_s=0.02) as worker:
        await queue.submit(job)
        for _ in range(500):
            if worker.sample("darkroom_completions_fenced_total"):
                break
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        assert await is_stored(store, checkpoint_path(job.id, 0))


async def test_a_job_that_fails_for_good_leaves_nothing(
    queue: JobQueue, store: ImageStore, pipeline: StepPipeline, tmp_path: Path
) -> None:
    """Its pictures cannot be stored: it is tried again, and again, and ends."""
    (tmp_path / "images").mkdir(exist_ok=True)
    (tmp_path / "images" / "results").write_text("a file where a folder is wanted")
    job = numbered(1, num_inference_steps=20)
    async with running(queue, store, pipeline, replace(OPTIONS, store_patience_s=0), checkpoint_every_s=0.01):
        await queue.submit(job)
        await wait_until(queue, job, in_state(JobState.FAILED))
        await asyncio.sleep(0.3)
    assert not await is_stored(store, checkpoint_path(job.id, 0))


async def test_a_store_that_refuses_costs_no_job(
    queue: JobQueue, store: ImageStore, pipeline: StepPipeline, tmp_path: Path
) -> None:
    job = numbered(1, num_inference_steps=STEPS)
    for name in ("checkpoints", "previews"):
        (tmp_path / "images" / name).write_text("a file where a folder is wanted")
    async with running(queue, store, pipeline, preview_every_s=0.01, checkpoint_every_s=0.01) as worker:
        await queue.submit(job)
        await wait_until(queue, job, in_state(JobState.COMPLETED))
        assert worker.sample("darkroom_checkpoints_written_total") == 0
