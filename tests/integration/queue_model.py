"""The life of jobs as a plain Python model: the design's table of transitions, without atomicity, keys or a server."""

from collections import Counter
from dataclasses import dataclass, field

from app.jobs.queue import WORKER_LOST, Tick, Verdict
from app.jobs.schema import TERMINAL_STATES, JobError, JobState, Priority
from tests.integration.fair_model import ORDER, FairModel, Flow

LEASE_S = 1000
OUTAGE_S = 3
MAX_QUEUED, MAX_OPEN, MAX_ATTEMPTS, MAX_CRASHES = 4, 5, 3, 2


@dataclass(slots=True)
class Job:
    """What the model knows of one job. `until`: the end of its lease or of its delay; `starts`: claims, replays too."""

    id: str
    tenant: str
    lane: str
    priority: Priority
    cost_ms: int
    seq: int
    submitted: int
    state: JobState = JobState.QUEUED
    token: str | None = None
    until: int = 0
    starts: int = 0
    attempts: int = 0
    crashes: int = 0
    lost_token: str | None = None
    kept_for: str | None = None
    kept_until: int = 0
    progress: bool = False
    steps: bool = False
    lost_steps: bool = False
    error: JobError | None = None
    finished: int = 0
    expired: bool = False

    @property
    def flow(self) -> Flow:
        return (self.priority, self.tenant)

    @property
    def place(self) -> str:
        """Where it stands in line, when it does."""
        return "suspects" if self.crashes else "front" if self.starts else "queue"


@dataclass(slots=True)
class Model:
    """The table of transitions of the design, in Python."""

    now: int = 0
    jobs: dict[str, Job] = field(default_factory=dict)
    keys: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    claims: dict[str, tuple[list[Job], int]] = field(default_factory=dict)
    fair: FairModel = field(default_factory=FairModel)
    totals: Counter[str] = field(default_factory=Counter)
    taken: dict[str, int] = field(default_factory=dict)
    rest_until: dict[str, int] = field(default_factory=dict)
    ticked: int | None = None
    pardon: int = -1

    def waiting(self, place: str, lanes: tuple[str, ...] | None = None) -> list[Job]:
        """Jobs that stand there, in these lanes or in all, the oldest first."""
        jobs = [job for job in self.jobs.values() if job.state is JobState.QUEUED and job.place == place]
        return sorted((job for job in jobs if lanes is None or job.lane in lanes), key=lambda job: job.seq)

    def queued(self, lane: str) -> list[Job]:
        return [job for job in self.jobs.values() if job.lane == lane and job.state is JobState.QUEUED]

    def open(self, tenant: str) -> list[Job]:
        return [job for job in self.jobs.values() if job.tenant == tenant and job.state not in TERMINAL_STATES]

    def submit(
        self, job_id: str, tenant: str, lane: str, priority: Priority, cost_ms: int, key: tuple[str, str] | None
    ) -> str:
        """Give the id of the job that this is, or why it was refused."""
        if job_id in self.jobs:
            return job_id
        if key is not None and (tenant, key[0]) in self.keys:
            earlier, body = self.keys[(tenant, key[0])]
            return earlier if body == key[1] else "reused"
        if len(self.queued(lane)) >= MAX_QUEUED:
            return "full"
        if len(self.open(tenant)) >= MAX_OPEN:
            return "tenant full"
        self.totals["submitted"] += 1
        seq = self.totals["submitted"]
        self.jobs[job_id] = Job(job_id, tenant, lane, priority, cost_ms, seq=seq, submitted=self.now)
        if key is not None:
            self.keys[(tenant, key[0])] = (job_id, key[1])
        self.fair.join(lane, (priority, tenant))
        return job_id

    def claim(self, token: str, worker: str, lanes: tuple[str, ...], most: int, *, idle: bool) -> list[Job]:
        batch, kept_until = self.claims.pop(token, ([], self.now))
        if self.now < kept_until:
            taken = [job for job in batch if self.verdict(job, token) is Verdict.OK]
        else:
            batch = taken = self._take(token, worker, lanes, most, idle=idle)
        for job in taken:
            job.until, job.starts = self.now + LEASE_S, job.starts + 1
        self.claims[token] = (batch, self.now + LEASE_S)
        return taken

    def _take(self, token: str, worker: str, lanes: tuple[str, ...], most: int, *, idle: bool) -> list[Job]:
        suspects = [
            job
            for job in self.waiting("suspects", lanes)
            if idle or job.kept_for in (None, worker) or job.kept_until < self.now
        ]
        if suspects and self._its_turn_is_over(worker, lanes):
            suspects = []
        if suspects and not idle:
            suspects[0].kept_for, suspects[0].kept_until = worker, self.now + LEASE_S
            return []
        if suspects:
            self.taken[worker] = self.now
            return [self._hold(suspects[0], token)]
        taken: list[Job] = []
        while len(taken) < most:
            if front := self.waiting("front", lanes):
                taken.append(self._hold(front[0], token))
                continue
            fresh = self.waiting("queue", lanes)
            if not fresh:
                break
            job = min(fresh, key=lambda job: (self.fair.lead(job.lane, job.flow), ORDER.index(job.priority), job.seq))
            lead = self.fair.lead(job.lane, job.flow)
            taken.append(self._hold(job, token))
            self._left(job)
            self.fair.charge(lanes, job.flow, lead, job.cost_ms)
        return taken

    def _its_turn_is_over(self, worker: str, lanes: tuple[str, ...]) -> bool:
        if worker in self.taken:
            self.rest_until[worker] = self.now + min(60, self.now - self.taken.pop(worker))
        others = self.waiting("front", lanes) or self.waiting("queue", lanes)
        return bool(others) and self.now < self.rest_until.get(worker, 0)

    def _hold(self, job: Job, token: str) -> Job:
        job.state, job.token, job.attempts, job.kept_for = JobState.IN_PROGRESS, token, job.attempts + 1, None
        job.lost_token = None
        return job

    def _left(self, job: Job) -> None:
        if not any(other.flow == job.flow for other in self.waiting("queue", (job.lane,))):
            self.fair.leave(job.lane, job.flow)

    def _end(self, job: Job, state: JobState, error: JobError | None = None) -> None:
        job.state, job.error, job.finished = state, error, self.now
        self.totals[state] += 1

    def verdict(self, job: Job, token: str) -> Verdict:
        if self.jobs.get(job.id) is not job or job.token != token:
            return Verdict.LOST
        if job.state is JobState.CANCELING:
            self._end(job, JobState.CANCELED)
        if job.state is JobState.CANCELED:
            return Verdict.CANCEL
        return Verdict.OK if job.state is JobState.IN_PROGRESS else Verdict.LOST

    def renew(self, job: Job, token: str) -> Verdict:
        verdict = self.verdict(job, token)
        if verdict is Verdict.OK:
            job.until = self.now + LEASE_S
        return verdict

    def report(self, job: Job, token: str) -> Verdict:
        verdict = self.verdict(job, token)
        if verdict is Verdict.OK:
            job.progress = job.steps = True
        return verdict

    def complete(self, job: Job, token: str) -> Verdict:
        if self.jobs.get(job.id) is job and job.token == token and job.state is JobState.COMPLETED:
            return Verdict.OK
        verdict = self.verdict(job, token)
        if verdict is Verdict.OK:
            self._end(job, JobState.COMPLETED)
        return verdict

    def fail(self, job: Job, token: str, error: JobError, retry_after_s: int) -> Verdict:
        if self.jobs.get(job.id) is job and job.token == token and job.state in (JobState.FAILED, JobState.DELAYED):
            return Verdict.OK
        verdict = self.verdict(job, token)
        if verdict is Verdict.OK:
            if error.retryable and job.attempts < MAX_ATTEMPTS:
                delay_s = min(retry_after_s * 2 ** (job.attempts - 1), max(60, retry_after_s))
                job.state, job.error, job.until = JobState.DELAYED, error, self.now + delay_s
                job.steps = job.lost_steps = False
            else:
                self._end(job, JobState.FAILED, error)
        return verdict

    def release(self, job: Job, token: str) -> Verdict:
        if self.jobs.get(job.id) is job and job.token == token and job.state is JobState.QUEUED:
            return Verdict.OK
        verdict = self.verdict(job, token)
        if verdict is Verdict.OK:
            job.state, job.attempts, job.progress = JobState.QUEUED, job.attempts - 1, False
            job.steps = job.lost_steps = False
        elif self.jobs.get(job.id) is job and job.state is JobState.QUEUED and job.lost_token == token:
            job.crashes, job.attempts = max(0, job.crashes - 1), job.attempts - 1
            job.lost_token, job.kept_for, job.token = None, None, token
            return Verdict.OK
        return verdict

    def cancel(self, job: Job) -> None:
        if job.state is JobState.QUEUED:
            fresh = job.place == "queue"
            self._end(job, JobState.CANCELED)
            if fresh:
                self._left(job)
        elif job.state is JobState.DELAYED:
            self._end(job, JobState.CANCELED)
        elif job.state is JobState.IN_PROGRESS:
            job.state = JobState.CANCELING

    def tick(self) -> Tick:
        moved = {"requeued": 0, "dead": 0, "canceled": 0, "retried": 0, "blameless": 0}
        if self.ticked is not None and self.now - self.ticked > OUTAGE_S:
            self.pardon = self.now + LEASE_S
        self.ticked = self.now
        for job in self.jobs.values():
            if job.until >= self.now:
                continue
            if job.state is JobState.CANCELING:
                self._end(job, JobState.CANCELED)
                moved["canceled"] += 1
            elif job.state is JobState.IN_PROGRESS:
                pardoned = job.until < self.pardon and job.attempts < MAX_ATTEMPTS
                job.crashes += not pardoned
                moved["blameless"] += pardoned
                if job.crashes >= MAX_CRASHES and not pardoned:
                    self._end(job, JobState.DEAD, WORKER_LOST)
                    moved["dead"] += 1
                else:
                    job.lost_steps, job.lost_token = job.steps, job.token
                    self._back_in_line(job)
                    moved["requeued"] += 1
            elif job.state is JobState.DELAYED:
                self._back_in_line(job)
                moved["retried"] += 1
        return Tick(moved["requeued"], moved["dead"], moved["canceled"], moved["retried"], moved["blameless"])

    def _back_in_line(self, job: Job) -> None:
        job.state, job.token, job.progress, job.steps = JobState.QUEUED, None, False, False

    def expire(self, pictures_s: int, record_s: int) -> list[str]:
        due = [job for job in self.jobs.values() if job.expired and job.finished <= self.now - record_s]
        for job in due:
            self._forget(job)
        ended = (JobState.COMPLETED, JobState.FAILED, JobState.CANCELED)
        going = [
            job
            for job in self.jobs.values()
            if job.state in ended and not job.expired and job.finished <= self.now - pictures_s
        ]
        for job in going:
            job.expired, job.finished = True, self.now  # from now on counts when its pictures went
        return [job.id for job in going]

    def purge(self, job: Job) -> str:
        if self.jobs.get(job.id) is not job:
            return "MISSING"
        if job.state not in TERMINAL_STATES:
            return "OPEN"
        self._forget(job)
        return "OK"

    def revive(self, job: Job) -> int:
        if self.jobs.get(job.id) is not job or job.state is not JobState.DEAD:
            return 0
        job.error, job.attempts, job.crashes = None, 0, 1
        self.totals[JobState.DEAD] -= 1
        self._back_in_line(job)
        return 1

    def _forget(self, job: Job) -> None:
        del self.jobs[job.id]
        self.keys = {key: (job_id, body) for key, (job_id, body) in self.keys.items() if job_id != job.id}
