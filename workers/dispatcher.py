"""What becomes of the engine's reports: pictures are handed in, failures told, checkpoints and previews kept."""

import asyncio
from collections.abc import Callable, Coroutine

import structlog

from app.jobs.queue import Verdict
from app.jobs.schema import JobError
from app.jobs.store import StoreError
from workers.engine.report import Drawn, Report
from workers.holdings import Holdings
from workers.metric_labels import Waste
from workers.metrics import WorkerMetrics
from workers.publisher import INTERNAL_ERROR, STORAGE_FAILED, Publisher, job_error
from workers.running_job import RunningJob
from workers.unfinished import Unfinished

log = structlog.get_logger()


class Dispatcher:
    """`abort` has the engine let a job's images go; `wake` says that there may be room for another job."""

    def __init__(
        self,
        holdings: Holdings,
        publisher: Publisher,
        unfinished: Unfinished,
        metrics: WorkerMetrics,
        abort: Callable[[RunningJob], None],
        wake: Callable[[], None],
    ) -> None:
        self._holdings = holdings
        self._publisher = publisher
        self._unfinished = unfinished
        self._metrics = metrics
        self._abort = abort
        self._wake = wake
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, report: Report) -> None:
        """Deal with one report, in tasks of its own."""
        self._metrics.observe(report)
        for request in report.resumed:
            if (job := self._holdings.owner(request)) is not None:
                log.info("job_resumed", job_id=job.job.id, image=job.index_of(request), step=request.resumed_step)
                self._metrics.jobs_resumed.inc(not job.resumed)
                job.resumed = True
        for drawn in report.drawn:
            if (job := self._holdings.owner(drawn.request)) is not None:
                self.spawn(job, self._publish(job, drawn))
        for failed in report.failed:
            if (job := self._holdings.owner(failed.request)) is not None:
                self.spawn(job, self._fail(job, job_error(failed), failed.cause))
        for saved in report.saved:
            if (job := self._holdings.owner(saved.request)) is not None:
                self.spawn(job, self._unfinished.keep_checkpoint(job, saved))
        for preview in report.previews:
            if (job := self._holdings.owner(preview.request)) is not None:
                self.spawn(job, self._unfinished.keep_preview(job, preview))
        for error in report.overlooked:
            log.warning("preview_or_checkpoint_not_taken", exc_info=error)

    def drop(self, job: RunningJob, why: str) -> None:
        """Stop drawing a job that is canceled, or that is not this worker's any more."""
        if self._let_go(job):
            log.info("job_dropped", job_id=job.job.id, why=why)
            job.unfinished.closed = True  # what is still to be written would outlive it, or be another worker's
            canceled = why == "canceled"
            if canceled:
                self._metrics.ended(job.job, "canceled")
                self.spawn(job, self._unfinished.forget(job))
            self.spawn(job, self._write_off(job, Waste.CANCELED if canceled else Waste.FENCED))

    def spawn(self, job: RunningJob, work: Coroutine[None, None, None]) -> None:
        """Do this about a job beside everything else; when it goes wrong, the job fails and nothing else does."""

        async def guarded() -> None:
            try:
                await work
            except Exception as error:  # the per-job boundary: one job's trouble is not the worker's
                await self._fail(job, INTERNAL_ERROR, error)

        task = asyncio.create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self, timeout_s: float) -> None:
        """Wait for what is under way."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    async def _publish(self, job: RunningJob, drawn: Drawn) -> None:
        try:
            await self._publisher.keep(job, drawn, lambda: job in self._holdings)
        except StoreError as error:
            await self._fail(job, STORAGE_FAILED, error)
            return
        self._wake()
        if job.complete and job in self._holdings:
            verdict = await self._publisher.complete(job)
            if self._holdings.forget(job):
                self._wake()
                # What is lost may be another worker's to go on with.
                if verdict is not Verdict.LOST:
                    await self._unfinished.forget(job)
                if verdict is not Verdict.OK:
                    self._metrics.wasted(job, Waste.CANCELED if verdict is Verdict.CANCEL else Waste.FENCED)

    async def _fail(self, job: RunningJob, error: JobError, cause: BaseException | None) -> None:
        if self._let_go(job):
            waste = await self._publisher.fail(job, error, cause)
            if waste in (Waste.FAILED, Waste.CANCELED):
                await self._unfinished.forget(job)
            await self._write_off(job, waste)
        elif cause is not None:
            log.warning("trouble_after_the_end", job_id=job.job.id, exc_info=cause)

    def _let_go(self, job: RunningJob) -> bool:
        if not self._holdings.forget(job):
            return False
        self._abort(job)
        self._wake()
        return True

    async def _write_off(self, job: RunningJob, waste: Waste) -> None:
        await job.gone.wait()  # the step that was running counts as well
        self._metrics.wasted(job, waste)
