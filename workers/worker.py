"""The worker's shell: claims jobs, feeds the engine, publishes what it hears, and hands in the pictures.

Everything here runs on one event loop; tensors stay on the engine's thread. It talks to the queue on its own rhythm
(progress 4 times a second, leases every quarter of a lease), never once per step.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from app.catalog.catalog import ModelCard
from app.jobs.errors import QueueError, QueueUnavailableError
from app.jobs.queue import Claim, JobQueue, Verdict
from app.jobs.room import StoreRoom
from app.jobs.schema import WorkerInfo
from app.jobs.store import ImageStore, StoreError
from workers.dispatcher import Dispatcher
from workers.engine.engine import Engine
from workers.engine.report import Report
from workers.engine_thread import EngineThread
from workers.holdings import Holdings
from workers.metric_labels import Waste
from workers.metrics import WorkerMetrics
from workers.publisher import Publisher, Signature
from workers.running_job import RunningJob, to_requests
from workers.unfinished import Unfinished
from workers.vitals import Vitals

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
    usd_per_hour: float
    store_patience_s: float
    min_free_mib: int
    revisions: Mapping[str, str]
    vitals: Vitals


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
        self._holdings = Holdings(metrics)
        self._room = StoreRoom(store, options.min_free_mib)
        self._unfinished = Unfinished(store, options.revisions, metrics)
        # A last word may be late by two leases: the job's token fences it.
        self._publisher = Publisher(
            queue,
            store,
            cards,
            metrics,
            Signature(options.worker_id, options.version, options.usd_per_hour),
            patience_s=2 * options.lease_s,
            store_patience_s=options.store_patience_s,
            encode_threads=options.encode_threads,
        )
        self._engine = EngineThread(engine, self._deliver, time.monotonic)
        self._wake = asyncio.Event()
        self._dispatcher = Dispatcher(
            self._holdings, self._publisher, self._unfinished, metrics, self._abort, self._wake.set
        )
        self._stopping = False
        self._could_store = True

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then hand back what is unfinished. Raises HungStepError."""
        self._loop = asyncio.get_running_loop()
        self._engine.start()
        self._slots_counted_at_s = time.monotonic()
        self._metrics.worker_up.set(1)
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
                self._every(_PROGRESS_EVERY_S, self._count_idle_slots),
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
            self._metrics.worker_up.set(0)
            self._wake.set()
            for task in (stopping, *loops[1:]):
                task.cancel()
            await asyncio.gather(stopping, *loops, return_exceptions=True)
            # Whatever else ended it may be the jobs' doing: their leases run out, and they are suspects.
            await self._drain(hand_back=stop.is_set() and not hung)

    # Taking work

    async def _claim_jobs(self) -> None:
        token = secrets.token_hex(16)
        while not self._stopping:
            self._wake.clear()
            claims: list[Claim] = []
            has_room = self._holdings.images_left < self._options.max_images and not self._holdings.alone
            if has_room and await self._can_store():
                asked_at_s = time.monotonic()
                try:
                    claims = await self._queue.claim(
                        self._options.worker_id, token, list(self._cards), 1, idle=not self._holdings
                    )
                    token = secrets.token_hex(16)
                except QueueUnavailableError as error:
                    # The reply may be what was lost: ask again by the same token.
                    log.warning("claim_failed", error=str(error))
                for claim in claims:
                    self._start(claim, asked_at_s)
            if not claims and not self._stopping:
                await _wait(self._wake, _CLAIM_FALLBACK_S)

    async def _can_store(self) -> bool:
        """Whether a new picture could be kept: what waits in the queue is safe, what is drawn in vain is not."""
        try:
            can = not self._publisher.is_refused and not await self._room.is_full()
        except StoreError as error:
            log.warning("store_unreachable", error=str(error))
            can = False
        if self._could_store and not can:
            log.warning("claiming_stopped", why="the image store takes nothing")
        self._could_store = can
        return can

    def _start(self, claim: Claim, asked_at_s: float) -> None:
        job = RunningJob(claim, to_requests(claim, asked_at_s), claimed_at_s=asked_at_s, confirmed_at_s=asked_at_s)
        self._holdings.add(job)
        self._dispatcher.spawn(job, self._begin(job))
        log.info("job_started", job_id=claim.job.id, model=claim.job.model, images=claim.job.n)

    async def _begin(self, job: RunningJob) -> None:
        found = await asyncio.gather(*(self._unfinished.find(job, request) for request in job.requests))
        for request, checkpoint in zip(job.requests, found, strict=True):
            request.resume = checkpoint
        job.redone_steps = max(0, job.claim.lost_steps - sum(saved.step_index for saved in found if saved is not None))
        self._metrics.wasted_steps.labels("restarted").inc(job.redone_steps)
        if job in self._holdings:
            self._engine.submit(job.requests)

    async def _listen(self) -> None:
        while not self._stopping:
            try:
                async with self._queue.wakes() as lanes:
                    self._wake.set()
                    while True:
                        lane = await asyncio.wait_for(anext(lanes), self._options.lease_s)
                        if lane in self._cards:
                            self._wake.set()
            except TimeoutError:
                continue  # a line that died in silence says nothing either: listen on a new one
            except QueueUnavailableError:
                await asyncio.sleep(_CLAIM_FALLBACK_S)

    # Talking with the queue about work in hand

    async def _drop_unconfirmed(self) -> None:
        # A lease unheard of for this long may be gone soon on the server's clock: stop before somebody else starts.
        # Its own loop, since a call to a server that hangs can take longer than the lease.
        give_up_before_s = time.monotonic() - self._options.lease_s * 2 / 3
        for job in self._holdings:
            if job.confirmed_at_s < give_up_before_s and not job.complete:
                self._dispatcher.drop(job, "lease_unconfirmed")
                # As soon as the queue is back: nobody has to wait for the lease's end then, nor suspect the job.
                self._dispatcher.spawn(job, self._publisher.hand_back(job))

    async def _publish_progress(self) -> None:
        reports = [(job, job.progress()) for job in self._holdings]
        reports = [(job, progress) for job, progress in reports if progress != job.reported]
        verdicts = await self._queue.progress([(job.claim, progress) for job, progress in reports])
        for (job, progress), verdict in zip(reports, verdicts, strict=True):
            job.reported = progress
            if verdict is Verdict.OK:
                job.told_steps = progress.step
            self._heed(job, verdict)

    async def _renew_leases(self) -> None:
        if not self._engine.alive:
            raise HungStepError("the engine's thread ended")
        if self._engine.busy_s() > self._options.step_timeout_s:
            raise HungStepError(f"no step finished in {self._options.step_timeout_s} s")
        jobs = list(self._holdings)
        asked_at_s = time.monotonic()
        for job, verdict in zip(jobs, await self._queue.renew([job.claim for job in jobs]), strict=True):
            job.confirmed_at_s = asked_at_s
            self._heed(job, verdict)

    async def _tick(self) -> None:
        self._metrics.ticked(await self._queue.tick())

    async def _heartbeat(self, *, forget_after_s: float = _FORGET_AFTER_S) -> None:
        info = WorkerInfo(
            id=self._options.worker_id,
            version=self._options.version,
            models=tuple(self._cards),
            device=self._options.device,
            jobs_in_progress=len(self._holdings),
            memory_used_bytes=self._options.vitals.memory_used_bytes(),
            step_times=self._options.vitals.step_times(),
            usd_per_hour=self._options.usd_per_hour,
        )
        await self._queue.heartbeat(info, forget_after_s=forget_after_s)

    def _heed(self, job: RunningJob, verdict: Verdict) -> None:
        # A job whose last word is on its way is over already, perhaps: `complete` hears what became of it.
        if verdict is not Verdict.OK and not job.complete:
            self._dispatcher.drop(job, "canceled" if verdict is Verdict.CANCEL else "lease_lost")

    def _abort(self, job: RunningJob) -> None:
        self._engine.abort([request.id for request in job.requests], lambda: self._soon(job.gone.set))

    def _deliver(self, report: Report) -> None:
        self._soon(self._dispatcher.take, report)

    def _soon(self, action: Callable[..., None], *arguments: object) -> None:
        # A step that outlasts the drain reports to a loop that is gone.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(action, *arguments)

    async def _count_idle_slots(self) -> None:
        now_s = time.monotonic()
        idle = max(0, self._options.max_images - self._holdings.images_left)
        self._metrics.slots_idle_seconds.inc(idle * (now_s - self._slots_counted_at_s))
        self._slots_counted_at_s = now_s

    # Small print

    async def _every(self, seconds: float, action: Callable[[], Awaitable[None]]) -> None:
        while not self._stopping:
            try:
                await action()
            except QueueError as error:
                log.warning("queue_unavailable", error=str(error))
            await asyncio.sleep(seconds)

    async def _drain(self, *, hand_back: bool) -> None:
        """Hand in what is drawn and save what is half-developed, within the drain timeout; then hand back the rest.

        After a hang nothing is handed back: the leases run out, and the job that hangs devices is counted a crash.
        """
        give_up_at_s = time.monotonic() + self._options.drain_timeout_s
        await asyncio.to_thread(self._engine.stop, self._options.drain_timeout_s)
        await asyncio.sleep(0)  # let the engine's last report arrive
        # However long the last step took, what it and the others saved is worth a moment.
        await self._dispatcher.finish(max(self._options.drain_timeout_s / 4, give_up_at_s - time.monotonic()))
        claims = [job.claim for job in self._holdings] if hand_back else []
        for job in self._holdings:
            self._metrics.wasted(job, Waste.RESTARTED)
            self._holdings.forget(job)
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
