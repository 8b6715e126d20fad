"""The life of jobs as a plain Python model: the design's table of transitions, without atomicity, keys or a server."""

from dataclasses import dataclass, field

from app.jobs.queue import WORKER_LOST, Tick, Verdict
from app.jobs.schema import JobError, JobState

LEASE_S = 1000
MAX_QUEUED, MAX_ATTEMPTS, MAX_CRASHES = 4, 2, 2


@dataclass(slots=True)
class Job:
    """What the model knows of one job. `until`: the end of its lease or of its delay; `starts`: claims, replays too."""

    id: str
    tenant: str
    lane: str
    seq: int
    submitted: int
    state: JobState = JobState.QUEUED
    token: str | None = None
    until: int = 0
    starts: int = 0
    attempts: int = 0
    crashes: int = 0
    progress: bool = False
    error: JobError | None = None


@dataclass(slots=True)
class Model:
    """The table of transitions of the design, in Python."""

    now: int = 0
    jobs: dict[str, Job] = field(default_factory=dict)
    claims: dict[str, tuple[list[Job], int]] = field(default_factory=dict)

    def waiting(self, lane: str) -> list[Job]:
        queued = [job for job in self.jobs.values() if job.lane == lane and job.state is JobState.QUEUED]
        return sorted(queued, key=lambda job: job.seq)

    def submit(self, job_id: str, tenant: str, lane: str) -> bool:
        if job_id not in self.jobs:
            if len(self.waiting(lane)) >= MAX_QUEUED:
                return False
            self.jobs[job_id] = Job(job_id, tenant, lane, seq=len(self.jobs) + 1, submitted=self.now)
        return True

    def claim(self, token: str, lanes: tuple[str, ...], most: int) -> list[Job]:
        batch, kept_until = self.claims.pop(token, ([], 0))
        known = batch if self.now < kept_until else []
        taken = [job for job in known if self.verdict(job, token) is Verdict.OK]
        if not taken:
            queued = sorted((job for lane in lanes for job in self.waiting(lane)), key=lambda job: job.seq)
            batch = taken = queued[:most]
            for job in taken:
                job.state, job.token, job.attempts = JobState.IN_PROGRESS, token, job.attempts + 1
        for job in taken:
            job.until, job.starts = self.now + LEASE_S, job.starts + 1
        if taken:
            self.claims[token] = (batch, self.now + LEASE_S)
        return taken

    def verdict(self, job: Job, token: str) -> Verdict:
        if job.token != token:
            return Verdict.LOST
        if job.state in (JobState.CANCELING, JobState.CANCELED):
            job.state, job.error = JobState.CANCELED, None
            return Verdict.CANCEL
        return Verdict.OK if job.state is JobState.IN_PROGRESS else Verdict.LOST

    def renew(self, job: Job, token: str) -> Verdict:
        verdict = self.verdict(job, token)
        if verdict is Verdict.OK:
            job.until = self.now + LEASE_S
        return verdict

    def progress(self, job: Job, token: str) -> Verdict:
        verdict = self.verdict(job, token)
        job.progress |= verdict is Verdict.OK
        return verdict

    def complete(self, job: Job, token: str) -> Verdict:
        if job.token == token and job.state is JobState.COMPLETED:
            return Verdict.OK
        verdict = self.verdict(job, token)
        if verdict is Verdict.OK:
            job.state, job.error = JobState.COMPLETED, None
        return verdict

    def fail(self, job: Job, token: str, error: JobError, retry_after_s: int) -> Verdict:
        if job.token == token and job.state in (JobState.FAILED, JobState.DELAYED):
            return Verdict.OK
        verdict = self.verdict(job, token)
        if verdict is Verdict.OK:
            job.state, job.error = JobState.FAILED, error
            if error.retryable and job.attempts < MAX_ATTEMPTS:
                job.state, job.until = JobState.DELAYED, self.now + retry_after_s
        return verdict

    def release(self, job: Job, token: str) -> Verdict:
        if job.token == token and job.state is JobState.QUEUED:
            return Verdict.OK
        verdict = self.verdict(job, token)
        if verdict is Verdict.OK:
            job.state, job.attempts, job.progress = JobState.QUEUED, job.attempts - 1, False
        return verdict

    def cancel(self, job: Job) -> None:
        if job.state in (JobState.QUEUED, JobState.DELAYED):
            job.state, job.error = JobState.CANCELED, None
        elif job.state is JobState.IN_PROGRESS:
            job.state = JobState.CANCELING

    def tick(self) -> Tick:
        moved = {"requeued": 0, "dead": 0, "canceled": 0, "retried": 0}
        for job in self.jobs.values():
            if job.until >= self.now:
                continue
            if job.state is JobState.CANCELING:
                job.state, job.error = JobState.CANCELED, None
                moved["canceled"] += 1
            elif job.state is JobState.IN_PROGRESS and job.crashes + 1 >= MAX_CRASHES:
                job.state, job.error, job.crashes = JobState.DEAD, WORKER_LOST, job.crashes + 1
                moved["dead"] += 1
            elif job.state in (JobState.IN_PROGRESS, JobState.DELAYED):
                lost = job.state is JobState.IN_PROGRESS
                job.crashes += lost
                job.state, job.token, job.progress = JobState.QUEUED, None, False
                moved["requeued" if lost else "retried"] += 1
        return Tick(**moved)
