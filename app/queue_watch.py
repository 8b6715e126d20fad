"""The queue as the gateway last saw it, and what follows from that."""

from collections.abc import Sequence

from app.catalog.catalog import ModelCard
from app.jobs.cost import job_cost_s, step_times
from app.jobs.queue import JobQueue
from app.jobs.schema import ImageJob, StepTime


class QueueWatch:
    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._step_times: Sequence[StepTime] = ()

    async def look(self) -> None:
        """Raises QueueUnavailableError, and then knows what it knew before."""
        self._step_times = step_times((await self._queue.stats()).workers)

    def cost_s(self, job: ImageJob, card: ModelCard) -> float:
        """GPU-seconds that a job should take, by what live workers measured."""
        return job_cost_s(job, card.rows(job.guidance_scale, job.true_cfg_scale), self._step_times)
