"""The worker's shell: claims jobs, feeds the engine, publishes what it hears, and hands in the pictures.

Everything here runs on one event loop; tensors stay on the engine's thread. It talks to the queue on its own rhythm
(progress 4 times a second, leases every quarter of a lease), never once per step.
"""

import asyncio
import contextlib
import hashlib
import itertools
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import structlog

from app.catalog.catalog import ModelCard
from app.jobs.queue import Claim, JobQueue, QueueError, QueueUnavailableError, Verdict
from app.jobs.schema import ErrorCode, ImageFile, JobError, Stage, WorkerInfo
from app.jobs.store import ImageStore, StoreError, result_path
from workers.engine.engine import Drawn, Engine, Failed, FailureReason, Report
from workers.engine_thread import EngineThread
from workers.images import encode_image
from workers.metrics import WorkerMetrics
from workers.running_job import RunningJob, to_requests

log = structlog.get_logger()
T = TypeVar("T")

_PROGRESS_EVERY_S = 0.25
_TICK_EVERY_S = 1.0
_HEARTBEAT_EVERY_S = 2.0
_FORGET_AFTER_S = 3 * _HEARTBEAT_EVERY_S
_CLAIM_FALLBACK_S = 1.0
_CLAIMS_AT_ONCE = 8

_ERRORS: Mapping[FailureReason, tuple[ErrorCode, str, bool]] = {
    FailureReason.OUT_OF_MEMORY: (
        ErrorCode.OUT_OF_MEMORY,
        "The device ran out of memory; a smaller size or fewer images would fit sooner.",
        True,
    ),
    FailureReason.INVALID_OUTPUT: (
        ErrorCode.INVALID_OUTPUT,
        "The model's output was not a number; another seed, fewer steps or a lower guidance may help.",
        False,
    ),
    FailureReason.INTERNAL_ERROR: (ErrorCode.INTERNAL_ERROR, "The worker failed while drawing this image.", False),
}


class HungStepError(Exception):
    """A step outlasted its limit: the device hangs, and only a new process helps."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    worker_id: str
    version: str
    device: str
    max_images: int
    lease_s: float
    step_timeout_s: float
    drain_timeout_s: float


class Worker:
    """Run one engine's jobs until told to stop."""

    def __init__(
        self,
        queue: JobQueue,
        store: ImageStore,
        engine: Engine,
        cards: Mapping[str, ModelCard],
        metrics: WorkerMetrics,
        options: WorkerOptions,
    ) -> None:
        self._queue = queue
        self._store = store
        self._cards = cards
        self._metrics = metrics
        self._options = options
        self._engine = EngineThread(engine, self._deliver, time.monotonic)
        self._jobs: dict[str, RunningJob] = {}
        self._finishing: set[asyncio.Task[None]] = set()
        self._arrivals = itertools.count()
        self._wake = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then hand back what is unfinished. Raises HungStepError."""
        self._loop = asyncio.get_running_loop()
        self._engine.start()
        loops = [
            asyncio.create_task(coroutine)
            for coroutine in (
                self._claim_jobs(),
                self._listen(),
                self._every(_PROGRESS_EVERY_S, self._publish_progress),
                self._every(self._options.lease_s / 4, self._renew_leases),
                self._every(_TICK_EVERY_S, self._tick),
                self._every(_HEARTBEAT_EVERY_S, self._heartbeat),
            )
        ]
        stopping = asyncio.create_task(stop.wait())
        try:
            finished, _ = await asyncio.wait([stopping, *loops], return_when=asyncio.FIRST_COMPLETED)
            for task in finished - {stopping}:
                task.result()
        finally:
            for task in (stopping, *loops):
                task.cancel()
            await asyncio.gather(stopping, *loops, return_exceptions=True)
            await self._drain()

    # Taking work

    async def _claim_jobs(self) -> None:
        token = secrets.token_hex(16)
        while True:
            self._wake.clear()
            room = self._options.max_images - sum(job.job.n - len(job.images) for job in self._jobs.values())
            most = min(room, _CLAIMS_AT_ONCE)
            claims: list[Claim] = []
            if most > 0:
                asked_at_s = time.monotonic()
                try:
                    claims = await self._queue.claim(self._options.worker_id, token, list(self._cards), most)
                    token = secrets.token_hex(16)
                except QueueUnavailableError as error:
                    # The reply may be what was lost: ask again by the same token.
                    log.warning("claim_failed", error=str(error))
                for claim in claims:
                    self._start(claim, asked_at_s)
            if most <= 0 or len(claims) < most:
                await _wait(self._wake, _CLAIM_FALLBACK_S)

    def _start(self, claim: Claim, asked_at_s: float) -> None:
        requests = to_requests(claim.job, next(self._arrivals))
        for _ in requests[1:]:
            next(self._arrivals)
        self._jobs[claim.job.id] = RunningJob(claim, requests, claimed_at_s=asked_at_s, confirmed_at_s=asked_at_s)
        self._metrics.jobs_in_progress.set(len(self._jobs))
        self._engine.submit(requests)
        log.info("job_started", job_id=claim.job.id, model=claim.job.model, images=claim.job.n)

    async def _listen(self) -> None:
        while True:
            try:
                async with self._queue.wakes() as lanes:
                    self._wake.set()
                    async for lane in lanes:
                        if lane in self._cards:
                            self._wake.set()
            except QueueUnavailableError:
                await asyncio.sleep(_CLAIM_FALLBACK_S)

    # Talking with the queue about work in hand

    async def _publish_progress(self) -> None:
        give_up_before_s = time.monotonic() - self._options.lease_s * 2 / 3
        for job in list(self._jobs.values()):
            if job.confirmed_at_s < give_up_before_s:
                # The lease may be gone soon on the server's clock: stop before somebody else starts.
                self._drop(job, "lease_unconfirmed")
        reports = [(job, job.progress()) for job in self._jobs.values()]
        reports = [(job, progress) for job, progress in reports if progress != job.reported]
        verdicts = await self._queue.progress([(job.claim, progress) for job, progress in reports])
        for (job, progress), verdict in zip(reports, verdicts, strict=True):
            job.reported = progress
            self._heed(job, verdict)

    async def _renew_leases(self) -> None:
        if self._engine.busy_s() > self._options.step_timeout_s or not self._engine.alive:
            raise HungStepError(f"no step finished in {self._options.step_timeout_s} s")
        jobs = list(self._jobs.values())
        asked_at_s = time.monotonic()
        for job, verdict in zip(jobs, await self._queue.renew([job.claim for job in jobs]), strict=True):
            job.confirmed_at_s = asked_at_s
            self._heed(job, verdict)

    async def _tick(self) -> None:
        await self._queue.tick()

    async def _heartbeat(self, *, forget_after_s: float = _FORGET_AFTER_S) -> None:
        info = WorkerInfo(
            id=self._options.worker_id,
            version=self._options.version,
            models=tuple(self._cards),
            device=self._options.device,
            jobs_in_progress=len(self._jobs),
        )
        await self._queue.heartbeat(info, forget_after_s=forget_after_s)

    def _heed(self, job: RunningJob, verdict: Verdict) -> None:
        if verdict is not Verdict.OK:
            self._drop(job, "canceled" if verdict is Verdict.CANCEL else "lease_lost")

    def _drop(self, job: RunningJob, why: str) -> None:
        if self._jobs.pop(job.job.id, None) is None:
            return
        self._engine.abort([request.id for request in job.requests])
        self._metrics.jobs_in_progress.set(len(self._jobs))
        self._wake.set()
        if why == "canceled":
            self._metrics.jobs_finished.labels(job.job.model, "canceled", "").inc()
        log.info("job_dropped", job_id=job.job.id, why=why)

    # Hearing from the engine

    def _deliver(self, report: Report) -> None:
        self._loop.call_soon_threadsafe(self._on_report, report)

    def _on_report(self, report: Report) -> None:
        if report.rows:
            self._metrics.batch_rows.labels(report.model).observe(report.rows)
            self._metrics.denoise_steps.labels(report.model).inc(report.rows)
            self._metrics.denoise_step_seconds.labels(report.model).observe(report.step_s)
        for drawn in report.drawn:
            if (job := self._owner(drawn.request.id)) is not None:
                self._finish(job, self._finish_image(job, drawn))
        for failed in report.failed:
            if (job := self._owner(failed.request.id)) is not None:
                self._finish(job, self._fail(job, _job_error(failed), failed.cause))

    def _owner(self, request_id: str) -> RunningJob | None:
        return self._jobs.get(request_id.rpartition("/")[0])

    def _finish(self, job: RunningJob, work: Coroutine[None, None, None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except Exception as error:  # the per-job boundary: one job's trouble is not the worker's
                await self._fail(job, _internal_error(), error)

        task = asyncio.create_task(guarded())
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)

    async def _finish_image(self, job: RunningJob, drawn: Drawn) -> None:
        index = int(drawn.request.id.rpartition("/")[2])
        started_s = time.monotonic()
        job.finishing = Stage.IMAGE_ENCODE
        data = await asyncio.to_thread(
            encode_image, drawn.pixels, job.job.output_format, job.job.output_compression, self._parameters(job, index)
        )
        encoded_s = time.monotonic()
        job.finishing = Stage.STORE
        path = result_path(job.job.id, job.claim.token, index, job.job.output_format)
        try:
            await self._store.put(path, data)
        except StoreError as error:
            message = "The picture was drawn, but the image store could not keep it."
            await self._fail(job, JobError(code=ErrorCode.STORAGE_FAILED, message=message, retryable=True), error)
            return
        stored_s = time.monotonic()
        job.image_encode_s = max(job.image_encode_s, encoded_s - started_s)
        job.store_s = max(job.store_s, stored_s - encoded_s)
        job.images[index] = ImageFile(
            index=index,
            path=path,
            content_type=job.job.output_format.content_type,
            width=job.job.width,
            height=job.job.height,
            seed=job.job.seeds[index],
            steps=drawn.request.step_index,
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )
        self._observe_image(drawn, encoded_s - started_s, stored_s - encoded_s)
        self._wake.set()
        if job.complete:
            await self._complete(job)

    async def _complete(self, job: RunningJob) -> None:
        result = job.result(
            model_revision=self._cards[job.job.model].source.revision,
            worker=self._options.worker_id,
            worker_version=self._options.version,
        )
        verdict = await self._insist(job, lambda: self._queue.complete(job.claim, result))
        if self._jobs.pop(job.job.id, None) is None:
            return
        self._metrics.jobs_in_progress.set(len(self._jobs))
        status = {Verdict.OK: "completed", Verdict.CANCEL: "canceled", Verdict.LOST: "fenced"}[verdict]
        self._metrics.jobs_finished.labels(job.job.model, status, "").inc()
        self._metrics.job_inference_seconds.labels(job.job.model).observe(time.monotonic() - job.claimed_at_s)
        log.info("job_finished", job_id=job.job.id, status=status, largest_batch=result.largest_batch)

    async def _fail(self, job: RunningJob, error: JobError, cause: BaseException | None) -> None:
        if self._jobs.pop(job.job.id, None) is None:
            return
        log.error("job_failed", job_id=job.job.id, code=error.code, exc_info=cause)
        self._engine.abort([request.id for request in job.requests])
        self._metrics.jobs_in_progress.set(len(self._jobs))
        self._metrics.jobs_finished.labels(job.job.model, "failed", error.code).inc()
        await self._insist(job, lambda: self._queue.fail(job.claim, error))

    # Small print

    async def _insist(self, job: RunningJob, say: Callable[[], Awaitable[Verdict]]) -> Verdict:
        """Say a last word about a job until the queue hears it; it is fenced, so late is safe."""
        deadline_s = time.monotonic() + 2 * self._options.lease_s
        while True:
            try:
                return await say()
            except QueueError as error:
                if time.monotonic() > deadline_s:
                    log.error("queue_did_not_hear", job_id=job.job.id, error=str(error))
                    return Verdict.LOST
                await asyncio.sleep(0.5)

    async def _every(self, seconds: float, action: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await action()
            except QueueError as error:
                log.warning("queue_unavailable", error=str(error))
            await asyncio.sleep(seconds)

    async def _drain(self) -> None:
        await asyncio.to_thread(self._engine.stop, self._options.drain_timeout_s)
        await asyncio.sleep(0)  # let the engine's last report arrive
        if self._finishing:
            await asyncio.wait(self._finishing, timeout=self._options.drain_timeout_s)
        claims = [job.claim for job in self._jobs.values()]
        try:
            await self._queue.release(claims)
            await self._heartbeat(forget_after_s=0)
        except QueueError as error:
            log.warning("not_released", jobs=len(claims), error=str(error))
        log.info("worker_stopped", released=len(claims))

    def _parameters(self, job: RunningJob, index: int) -> dict[str, object]:
        spec = job.job.model_dump(exclude={"id", "tenant", "n", "metadata", "output_format", "output_compression"})
        revision = self._cards[job.job.model].source.revision
        return {**spec, "seed": job.job.seeds[index], "model_revision": revision, "software": "Darkroom"}

    def _observe_image(self, drawn: Drawn, encode_s: float, store_s: float) -> None:
        model, request = drawn.request.spec.model, drawn.request
        self._metrics.images_generated.labels(model).inc()
        self._metrics.image_steps.labels(model).observe(request.step_index)
        stages: Sequence[tuple[Stage, float]] = (
            (Stage.TEXT_ENCODE, request.text_encode_s),
            (Stage.DENOISE, request.denoise_s),
            (Stage.VAE_DECODE, request.vae_decode_s),
            (Stage.IMAGE_ENCODE, encode_s),
            (Stage.STORE, store_s),
        )
        for stage, seconds in stages:
            self._metrics.stage_seconds.labels(model, stage).observe(seconds)


def _job_error(failed: Failed) -> JobError:
    code, message, retryable = _ERRORS[failed.reason]
    return JobError(code=code, message=message, retryable=retryable)


def _internal_error() -> JobError:
    code, message, retryable = _ERRORS[FailureReason.INTERNAL_ERROR]
    return JobError(code=code, message=message, retryable=retryable)


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), timeout_s)
