"""The jobs this worker holds, from the claim to the last word."""

from collections.abc import Iterator

from workers.engine.request import DenoiseRequest
from workers.metrics import WorkerMetrics
from workers.running_job import RunningJob


class Holdings:
    """A job can come back to the worker that lost it, so a job is known by its claim, not by its id."""

    def __init__(self, metrics: WorkerMetrics) -> None:
        self._metrics = metrics
        self._jobs: dict[str, RunningJob] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[RunningJob]:
        """Over a copy: jobs may come and go meanwhile."""
        return iter(list(self._jobs.values()))

    def __contains__(self, job: RunningJob) -> bool:
        return self._jobs.get(job.job.id) is job

    @property
    def images_left(self) -> int:
        return sum(job.images_left for job in self._jobs.values())

    @property
    def alone(self) -> bool:
        """Whether what is held is a suspect, beside which nothing else may run."""
        return any(job.claim.alone for job in self._jobs.values())

    def add(self, job: RunningJob) -> None:
        self._jobs[job.job.id] = job
        self._count(job.job.model)

    def owner(self, request: DenoiseRequest) -> RunningJob | None:
        """Whose image it is; None for one that an earlier claim still draws."""
        job = self._jobs.get(request.id.rpartition("/")[0])
        return job if job is not None and request in job.requests else None

    def forget(self, job: RunningJob) -> bool:
        """False when it was forgotten before: then its end is somebody else's."""
        if job not in self:
            return False
        del self._jobs[job.job.id]
        self._count(job.job.model)
        return True

    def _count(self, model: str) -> None:
        held = sum(job.job.model == model for job in self._jobs.values())
        self._metrics.jobs_in_progress.labels(model).set(held)
