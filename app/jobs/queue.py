"""The life of a job, as atomic Redis scripts: submit claim renew progress complete fail release cancel tick.

At-least-once execution, exactly one visible result. A claim gives a random token; every later word about the job must
carry it, so that a worker which lost its lease cannot touch the job any more (a counter would not do: after a failover
two workers can hold the same count). Every script may be asked again after a lost reply.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import structlog
from pydantic import BaseModel, ValidationError
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from app.jobs.errors import (
    JobNotFoundError,
    KeyReusedError,
    QueueError,
    QueueFullError,
    QueueUnavailableError,
    TenantFullError,
    UnreadableJobError,
)
from app.jobs.keys import CHANGED_CHANNEL, WAKE_CHANNEL
from app.jobs.records import parse_record, parse_stats
from app.jobs.schema import (
    ErrorCode,
    ImageJob,
    JobError,
    JobRecord,
    JobResult,
    JobState,
    Progress,
    QueueStats,
    WorkerInfo,
)
from app.jobs.scripts import Scripts, translated_errors

log = structlog.get_logger()

LEASE_S = 15.0
MAX_ATTEMPTS = 3
MAX_CRASHES = 3
MAX_QUEUED = 10_000
MAX_OPEN = 10_000
IDEMPOTENCY_S = 24 * 3600
_LIST_SCAN_LIMIT = 2_000
_OUTAGE_S = 3.0
_DISK_WITHIN_MS = 1800  # its client waits 2 s for an answer; Redis itself writes once a second
_NEWER_WORKER_S = 5.0
_OF_A_NEWER_VERSION = {"extra_forbidden", "enum", "literal_error"}

WORKER_LOST = JobError(
    code=ErrorCode.WORKER_LOST,
    message="The worker drawing this image disappeared, more than once; the job was given up.",
    retryable=True,
)


_UNREADABLE = JobError(
    code=ErrorCode.INTERNAL_ERROR,
    message="The worker could not read this job: another version of Darkroom wrote it.",
    retryable=False,
)


class Verdict(StrEnum):
    """What the queue says to a worker about a job: go on, stop because it is canceled, or stop because it is not
    this worker's any more."""

    OK = "OK"
    CANCEL = "CANCEL"
    LOST = "LOST"


@dataclass(frozen=True, slots=True)
class Claim:
    """A job and the token that fences it.

    age_s: since it was submitted, by the server's clock, when it was claimed.
    started_before: an earlier attempt may have left checkpoints; also True where this very claim was asked twice.
    alone: a suspect, which nothing else may run beside. lost_steps: what its last worker had taken when it died.
    """

    job: ImageJob
    token: str
    age_s: float
    started_before: bool
    alone: bool = False
    lost_steps: int = 0


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A client's own name for a request, and the hash by which another request under that name is found out."""

    key: str
    body_sha256: str


@dataclass(frozen=True, slots=True)
class Tick:
    """What one `tick` moved.

    blameless: those of the requeued whose leases ended because the queue was away. ended: model and state of those dead
    and canceled.
    """

    requeued: int
    dead: int
    canceled: int
    retried: int
    blameless: int = 0
    ended: tuple[tuple[str, JobState], ...] = field(default=(), compare=False)

    def finished(self) -> Iterator[tuple[str, JobState, str]]:
        """Give model, state and error code of those that ended, as darkroom_jobs_finished_total labels them."""
        for model, state in self.ended:
            yield model, state, WORKER_LOST.code if state is JobState.DEAD else ""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list; `next_after` is the id to ask for the next page with, None on the last one."""

    records: tuple[JobRecord, ...]
    next_after: str | None


class JobQueue:
    """Both ends of the protocol. Every method raises QueueUnavailableError when the server cannot be reached."""

    def __init__(
        self,
        redis: Redis,
        *,
        lease_s: float = LEASE_S,
        max_queued: int = MAX_QUEUED,
        max_open: int = MAX_OPEN,
        max_attempts: int = MAX_ATTEMPTS,
        max_crashes: int = MAX_CRASHES,
        wait_for_disk: bool = False,
    ) -> None:
        """wait_for_disk: accept a job when the server's disk has it, though the server itself may answer before."""
        self._redis = redis
        self._run = Scripts(redis).run
        self._lease_ms = round(lease_s * 1000)
        self._max_queued = max_queued
        self._max_open = max_open
        self._max_attempts = max_attempts
        self._max_crashes = max_crashes
        self._wait_for_disk = wait_for_disk
        self._migrated = False

    # Gateway side

    async def submit(
        self,
        job: ImageJob,
        *,
        cost_s: float = 1.0,
        idempotency: Idempotency | None = None,
        cancel_after_s: float | None = None,
    ) -> str:
        """Put a job in line and return its id, or that of the job which came with the same idempotency key before.

        cost_s: GPU-seconds that it should take, by which tenants are treated fairly. cancel_after_s: it is canceled
        unless it is over by then. Raises QueueFullError, TenantFullError, KeyReusedError or StorageFullError.
        """
        reply = await self._run_durably(
            "submit",
            job.id,
            job.tenant,
            job.model,
            job.priority,
            max(1, round(cost_s * 1000)),
            written(job),
            self._max_queued,
            self._max_open,
            idempotency.key if idempotency else "",
            idempotency.body_sha256 if idempotency else "",
            IDEMPOTENCY_S * 1000,
            -1 if cancel_after_s is None else round(cancel_after_s * 1000),
        )
        match reply:
            case ["FULL", queued, retry_ms]:
                raise QueueFullError(job.model, int(queued), retry_ms / 1000)
            case ["TENANT_FULL", open_jobs, retry_ms]:
                raise TenantFullError(int(open_jobs), retry_ms / 1000)
            case ["REUSED"]:
                raise KeyReusedError("this idempotency key came with another request before")
            case [_, job_id]:
                return str(job_id)
        raise AssertionError(reply)

    async def _run_durably(self, name: str, *args: str | int) -> Any:
        if not self._wait_for_disk:
            return await self._run(name, *args)
        async with self._redis.client() as connection:
            reply = await self._run(name, *args, on=connection)
            with translated_errors():
                # Of this connection's writes; a server that is asked to write at once has done so.
                on_disk, _ = await connection.waitaof(1, 0, _DISK_WITHIN_MS)
        if not on_disk:
            raise QueueUnavailableError(f"the server's disk did not have the job within {_DISK_WITHIN_MS} ms")
        return reply

    async def read(self, tenant: str, job_id: str) -> JobRecord:
        """Fetch one record. Raises JobNotFoundError or UnreadableJobError."""
        [record] = await self.read_many(tenant, [job_id])
        if isinstance(record, QueueError):
            raise record
        return record

    async def read_many(self, tenant: str, job_ids: Sequence[str]) -> list[JobRecord | QueueError]:
        """Fetch records in one call; in place of one that cannot be had stands what `read` would raise."""
        if not job_ids:
            return []
        return [
            _record(job_id, fields)
            for job_id, fields in zip(job_ids, await self._run("read", tenant, *job_ids), strict=True)
        ]

    async def page(
        self, tenant: str, *, limit: int, after: str = "", model: str = "", states: Sequence[JobState] = ()
    ) -> Page:
        """Page through a tenant's jobs, newest first. Raises JobNotFoundError when `after` is not one of them.

        A page may be short, even empty, before the last one: one call looks at a bounded number of jobs.
        """
        reply = await self._run("list", tenant, after, limit, model, _LIST_SCAN_LIMIT, *states)
        if reply[0] == "MISSING":
            raise JobNotFoundError(after)
        return Page(records=await self._records(tenant, reply[2:]), next_after=reply[1] or None)

    async def cancel(self, tenant: str, job_id: str) -> bool:
        """Cancel a job wherever it is; a terminal job stays as it is. Raises JobNotFoundError.

        True: it waited, and this call ended it. What a worker holds ends when that worker hears of it.
        """
        word = await self._run("cancel", job_id, tenant)
        if word == "MISSING":
            raise JobNotFoundError(job_id)
        return bool(word == "ENDED")

    async def stats(self) -> QueueStats:
        return parse_stats(await self._run("stats"))

    def changes(self) -> AbstractAsyncContextManager[AsyncIterator[str]]:
        """Listen for ids of jobs whose records changed. Messages can be missed: the record is the truth."""
        return self._listening(CHANGED_CHANNEL)

    # Worker side

    async def claim(
        self, worker: str, token: str, lanes: Sequence[str], most: int, *, idle: bool = True
    ) -> list[Claim]:
        """Take up to `most` jobs of these lanes, with a lease. Asking again with one token is safe.

        idle: the worker holds nothing. A suspect is given to an idle worker only, and alone; a busy one that should
        take it gets nothing until it is idle. A job of a newer version is handed back for another worker, one that
        nobody can read fails.
        """
        reply = await self._run("claim", token, worker, most, self._lease_ms, int(idle), *lanes)
        claims = []
        for job_id, spec, age_ms, started_before, alone, lost_steps in reply:
            try:
                job = ImageJob.model_validate_json(spec)
            except ValidationError as error:
                with suppress(QueueUnavailableError):  # the others are in hand; this one's lease ends by itself
                    await self._decline(job_id, token, error)
            else:
                claims.append(Claim(job, token, age_ms / 1000, started_before == 1, alone == 1, lost_steps))
        return claims

    async def _decline(self, job_id: str, token: str, error: ValidationError) -> None:
        if {problem["type"] for problem in error.errors()} <= _OF_A_NEWER_VERSION:
            log.warning("job_of_a_newer_version", job_id=job_id)
            await self._run("release", round(_NEWER_WORKER_S * 1000), job_id, token)
        else:
            log.error("job_unreadable", job_id=job_id)
            await self._run("fail", job_id, token, _UNREADABLE.model_dump_json(), -1, self._max_attempts)

    async def renew(self, claims: Sequence[Claim]) -> list[Verdict]:
        """Extend the leases of these jobs."""
        if not claims:
            return []
        pairs = [word for claim in claims for word in (claim.job.id, claim.token)]
        return [Verdict(word) for word in await self._run("renew", self._lease_ms, *pairs)]

    async def progress(self, reports: Sequence[tuple[Claim, Progress]]) -> list[Verdict]:
        """Publish how far these jobs are."""
        if not reports:
            return []
        words = [
            word for claim, report in reports for word in (claim.job.id, claim.token, written(report), report.step)
        ]
        return [Verdict(word) for word in await self._run("progress", *words)]

    async def complete(self, claim: Claim, result: JobResult) -> Verdict:
        """Make the result visible, if the job is still this claim's."""
        return Verdict(await self._run("complete", claim.job.id, claim.token, written(result)))

    async def fail(self, claim: Claim, error: JobError, *, retry_after_s: float = 1.0) -> Verdict:
        """End the job with an error, or put it back for later when the error is retryable and attempts are left.

        retry_after_s: before the second attempt; doubled before each further one, at most a minute.
        """
        retry_ms = round(retry_after_s * 1000) if error.retryable else -1
        return Verdict(
            await self._run("fail", claim.job.id, claim.token, error.model_dump_json(), retry_ms, self._max_attempts)
        )

    async def release(self, claims: Sequence[Claim]) -> list[Verdict]:
        """Hand jobs back unfinished: they go first again."""
        if not claims:
            return []
        pairs = [word for claim in claims for word in (claim.job.id, claim.token)]
        return [Verdict(word) for word in await self._run("release", 0, *pairs)]

    async def heartbeat(self, info: WorkerInfo, *, forget_after_s: float) -> None:
        """Say that a worker lives; with 0 seconds, that it is gone."""
        await self._run("heartbeat", info.id, written(info), round(forget_after_s * 1000))

    def wakes(self) -> AbstractAsyncContextManager[AsyncIterator[str]]:
        """Listen for lanes that got work. A missed message costs only the listener's own fallback interval."""
        return self._listening(WAKE_CHANNEL)

    # Anyone

    async def tick(self) -> Tick:
        """Move what time has moved: expired leases back to their lanes, due retries too; cancel what is late.

        The first one brings a queue that an older version left into today's form.
        """
        if not self._migrated and (met := await self._run("migrate")):
            log.info("queue_migrated", jobs=met)
        self._migrated = True
        reply = await self._run(
            "tick",
            self._max_crashes,
            self._max_attempts,
            WORKER_LOST.model_dump_json(),
            100,
            round(_OUTAGE_S * 1000),
            self._lease_ms,
        )
        requeued, dead, canceled, retried, blameless, lanes, states = reply
        ended = tuple(zip(lanes, map(JobState, states), strict=True))
        return Tick(requeued, dead, canceled, retried, blameless, ended)

    async def ping(self) -> None:
        """Raise QueueUnavailableError unless the server answers."""
        with translated_errors():
            await self._redis.ping()

    @asynccontextmanager
    async def _listening(self, channel: str) -> AsyncIterator[AsyncIterator[str]]:
        async with self._redis.pubsub() as pubsub:
            with translated_errors():
                await pubsub.subscribe(channel)
            yield _messages(pubsub)

    async def _records(self, tenant: str, job_ids: Sequence[str]) -> tuple[JobRecord, ...]:
        records = []
        for record in await self.read_many(tenant, job_ids):
            if isinstance(record, JobRecord):
                records.append(record)
            elif isinstance(record, UnreadableJobError):
                log.error("job_unreadable", job_id=str(record))
        return tuple(records)


def _record(job_id: str, fields: Sequence[str]) -> JobRecord | QueueError:
    try:
        return parse_record(job_id, fields) if fields else JobNotFoundError(job_id)
    except UnreadableJobError as error:
        return error


def written(message: BaseModel) -> str:
    """As it is kept: without what is at its default, which a reader of an older version may not know."""
    return message.model_dump_json(exclude_defaults=True)


async def _messages(pubsub: PubSub) -> AsyncIterator[str]:
    while True:
        with translated_errors():
            message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=1.0)
        if message is not None:
            yield message["data"]
