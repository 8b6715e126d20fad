"""The worker's shell: claims jobs, feeds the engine, publishes what it hears, and hands in the pictures.

Everything here runs on one event loop; tensors stay on the engine's thread. It talks to the queue on its own rhythm
(progress 4 times a second, leases every quarter of a lease), never once per step.
"""

import asyncio
import contextlib
import itertools
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass

import structlog

from app.catalog.catalog import ModelCard
from app.jobs.errors import QueueError, QueueUnavailableError
from app.jobs.queue import Claim, JobQueue, Verdict
from app.jobs.schema import JobError, WorkerInfo
from app.jobs.store import ImageStore, StoreError
from workers.engine.engine import Drawn, Engine, Report
from workers.engine.request import DenoiseRequest
from workers.engine_thread import EngineThread
from workers.metrics import WorkerMetrics
from workers.publisher import INTERNAL_ERROR, JOB_ERRORS, STORAGE_FAILED, Publisher, Signature
from workers.running_job import RunningJob, to_requests

log = structlog.get_logger()

_PROGRESS_EVERY_S = 0.25
_TICK_EVERY_S = 1.0
_HEARTBEAT_EVERY_S = 2.0
_FORGET_AFTER_S = 3 * _HEARTBEAT_EVERY_S
_CLAIM_FALLBACK_S = 1.0


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
    encode_threads: int


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
        self._cards = cards
        self._metrics = metrics
        self._options = options
        # A last word may be late by two leases: the job's token fences it.
        self._publisher = Publisher(
            queue,
            store,
            cards,
            metrics,
            Signature(options.worker_id, options.version),
            patience_s=2 * options.lease_s,
            encode_threads=options.encode_threads,
        )
        self._engine = EngineThread(engine, self._deliver, time.monotonic)
        self._jobs: dict[str, RunningJob] = {}
        self._finishing: set[asyncio.Task[None]] = set()
        self._arrivals = itertools.count()
        self._wake = asyncio.Event()
        self._stopping = False

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
                self._every(_PROGRESS_EVERY_S, self._drop_unconfirmed),
                self._every(_TICK_EVERY_S, self._tick),
                self._every(_HEARTBEAT_EVERY_S, self._heartbeat),
            )
        ]
        stopping = asyncio.create_task(stop.wait())
        hung = False
        try:
            finished, _ = await asyncio.wait([stopping, *loops], return_when=asyncio.FIRST_COMPLETED)
            for task in finished - {stopping}:
                task.result()
        except HungStepError:
            hung = True
            raise
        finally:
            # The loops look at this themselves: a call to the queue can swallow a cancellation. The first one, the
            # claims, is not canceled at all, since the reply it waits for may bring jobs that must be handed back.
            self._stopping = True
            self._wake.set()
            for task in (stopping, *loops[1:]):
                task.cancel()
            await asyncio.gather(stopping, *loops, return_exceptions=True)
            await self._drain(hand_back=not hung)

    # Taking work

    async def _claim_jobs(self) -> None:
        token = secrets.token_hex(16)
        while not self._stopping:
            self._wake.clear()
            claims: list[Claim] = []
            if sum(job.images_left for job in self._jobs.values()) < self._options.max_images:
                asked_at_s = time.monotonic()
                try:
                    claims = await self._queue.claim(self._options.worker_id, token, list(self._cards), 1)
                    token = secrets.token_hex(16)
                except QueueUnavailableError as error:
                    # The reply may be what was lost: ask again by the same token.
                    log.warning("claim_failed", error=str(error))
                for claim in claims:
                    self._start(claim, asked_at_s)
            if not claims and not self._stopping:
                await _wait(self._wake, _CLAIM_FALLBACK_S)

    def _start(self, claim: Claim, asked_at_s: float) -> None:
        requests = to_requests(claim.job, self._arrivals)
        self._jobs[claim.job.id] = RunningJob(claim, requests, claimed_at_s=asked_at_s, confirmed_at_s=asked_at_s)
        self._metrics.jobs_in_progress.set(len(self._jobs))
        self._engine.submit(requests)
        log.info("job_started", job_id=claim.job.id, model=claim.job.model, images=claim.job.n)

    async def _listen(self) -> None:
        while not self._stopping:
            try:
                async with self._queue.wakes() as lanes:
                    self._wake.set()
                    async for lane in lanes:
                        if lane in self._cards:
                            self._wake.set()
            except QueueUnavailableError:
                await asyncio.sleep(_CLAIM_FALLBACK_S)

    # Talking with the queue about work in hand

    async def _drop_unconfirmed(self) -> None:
        # A lease unheard of for this long may be gone soon on the server's clock: stop before somebody else starts.
        # Its own loop, since a call to a server that hangs can take longer than the lease.
        give_up_before_s = time.monotonic() - self._options.lease_s * 2 / 3
        for job in list(self._jobs.values()):
            if job.confirmed_at_s < give_up_before_s:
                self._drop(job, "lease_unconfirmed")

    async def _publish_progress(self) -> None:
        reports = [(job, job.progress()) for job in self._jobs.values()]
        reports = [(job, progress) for job, progress in reports if progress != job.reported]
        verdicts = await self._queue.progress([(job.claim, progress) for job, progress in reports])
        for (job, progress), verdict in zip(reports, verdicts, strict=True):
            job.reported = progress
            self._heed(job, verdict)

    async def _renew_leases(self) -> None:
        if not self._engine.alive:
            raise HungStepError("the engine's thread ended")
        if self._engine.busy_s() > self._options.step_timeout_s:
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
        # A job whose last word is on its way is over already, perhaps: `complete` hears what became of it.
        if verdict is not Verdict.OK and not job.complete:
            self._drop(job, "canceled" if verdict is Verdict.CANCEL else "lease_lost")

    def _drop(self, job: RunningJob, why: str) -> None:
        if self._forget(job):
            self._engine.abort([request.id for request in job.requests])
            if why == "canceled":
                self._metrics.jobs_finished.labels(job.job.model, "canceled", "").inc()
            log.info("job_dropped", job_id=job.job.id, why=why)

    # Hearing from the engine

    def _deliver(self, report: Report) -> None:
        # A step that outlasts the drain reports to a loop that is gone.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._on_report, report)

    def _on_report(self, report: Report) -> None:
        if report.rows:
            self._metrics.batch_rows.labels(report.model).observe(report.rows)
            self._metrics.denoise_steps.labels(report.model).inc(report.rows)
            self._metrics.denoise_step_seconds.labels(report.model).observe(report.step_s)
        for drawn in report.drawn:
            if (job := self._owner(drawn.request)) is not None:
                self._finish(job, self._publish(job, drawn))
        for failed in report.failed:
            if (job := self._owner(failed.request)) is not None:
                self._finish(job, self._fail(job, JOB_ERRORS[failed.reason], failed.cause))

    def _owner(self, request: DenoiseRequest) -> RunningJob | None:
        # A job can come back to the worker that lost it: what its earlier claim still draws is nobody's.
        job = self._jobs.get(request.id.rpartition("/")[0])
        return job if job is not None and request in job.requests else None

    def _finish(self, job: RunningJob, work: Coroutine[None, None, None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except Exception as error:  # the per-job boundary: one job's trouble is not the worker's
                await self._fail(job, INTERNAL_ERROR, error)

        task = asyncio.create_task(guarded())
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)

    async def _publish(self, job: RunningJob, drawn: Drawn) -> None:
        try:
            await self._publisher.keep(job, drawn)
        except StoreError as error:
            await self._fail(job, STORAGE_FAILED, error)
            return
        self._wake.set()
        if job.complete:
            await self._publisher.complete(job)
            self._forget(job)

    async def _fail(self, job: RunningJob, error: JobError, cause: BaseException | None) -> None:
        if self._forget(job):
            self._engine.abort([request.id for request in job.requests])
            await self._publisher.fail(job, error, cause)

    def _forget(self, job: RunningJob) -> bool:
        """False when it was forgotten before: then its end is somebody else's."""
        if self._jobs.get(job.job.id) is not job:
            return False
        del self._jobs[job.job.id]
        self._metrics.jobs_in_progress.set(len(self._jobs))
        self._wake.set()
        return True

    # Small print

    async def _every(self, seconds: float, action: Callable[[], Awaitable[None]]) -> None:
        while not self._stopping:
            try:
                await action()
            except QueueError as error:
                log.warning("queue_unavailable", error=str(error))
            await asyncio.sleep(seconds)

    async def _drain(self, *, hand_back: bool) -> None:
        """Hand in what is drawn, within the drain timeout; then hand back the rest.

        After a hang nothing is handed back: the leases run out, and the job that hangs devices is counted a crash.
        """
        give_up_at_s = time.monotonic() + self._options.drain_timeout_s
        await asyncio.to_thread(self._engine.stop, self._options.drain_timeout_s)
        await asyncio.sleep(0)  # let the engine's last report arrive
        if self._finishing:
            await asyncio.wait(self._finishing, timeout=max(0.0, give_up_at_s - time.monotonic()))
        claims = [job.claim for job in self._jobs.values()] if hand_back else []
        try:
            await self._queue.release(claims)
            await self._heartbeat(forget_after_s=0)
        except QueueError as error:
            log.warning("not_released", jobs=len(claims), error=str(error))
        self._publisher.close()  # last: what comes later is fenced by now
        log.info("worker_stopped", released=len(claims))


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), timeout_s)
