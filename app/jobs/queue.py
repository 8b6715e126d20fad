"""The life of a job, as atomic Redis scripts: submit claim renew progress complete fail release cancel tick.

At-least-once execution, exactly one visible result. A claim gives a random token; every later word about the job must
carry it, so that a worker which lost its lease cannot touch the job any more (a counter would not do: after a failover
two workers can hold the same count). Every script may be asked again after a lost reply.

    QueueError
    ├── QueueUnavailableError   the server is away, loading, or cannot serve now
    ├── StorageFullError        the server is out of memory and takes no new work
    ├── QueueFullError          too many jobs wait for this model
    ├── JobNotFoundError        no such job, or another tenant's
    └── UnreadableJobError      another version of Darkroom wrote it
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from typing import Any

import structlog
from redis import exceptions as redis_errors
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.jobs.keys import PREFIX, WAKE_CHANNEL
from app.jobs.schema import (
    ErrorCode,
    ImageJob,
    JobError,
    JobRecord,
    JobResult,
    JobState,
    LaneStats,
    Progress,
    QueueStats,
    WorkerInfo,
)

log = structlog.get_logger()

LEASE_S = 15.0
RENEW_EVERY_S = 4.0
MAX_ATTEMPTS = 3
MAX_CRASHES = 3
MAX_QUEUED = 10_000
_RETRY_DELAYS_S = (0.05, 0.2)
_LIST_SCAN_LIMIT = 2_000

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


class QueueError(Exception):
    """Base of everything that JobQueue raises."""


class QueueUnavailableError(QueueError):
    pass


class StorageFullError(QueueError):
    pass


class QueueFullError(QueueError):
    def __init__(self, lane: str, queued: int) -> None:
        super().__init__(f"{queued} jobs already wait for {lane}")
        self.lane = lane
        self.queued = queued


class JobNotFoundError(QueueError):
    pass


class UnreadableJobError(QueueError):
    pass


class Verdict(StrEnum):
    """What the queue says to a worker about a job: go on, stop because it is canceled, or stop because it is not
    this worker's any more."""

    OK = "OK"
    CANCEL = "CANCEL"
    LOST = "LOST"


@dataclass(frozen=True, slots=True)
class Claim:
    """A job and the token that fences it."""

    job: ImageJob
    token: str


@dataclass(frozen=True, slots=True)
class Tick:
    """What one `tick` moved."""

    requeued: int
    dead: int
    canceled: int
    retried: int


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list; `next_after` is the id to ask for the next page with, None on the last one."""

    records: tuple[JobRecord, ...]
    next_after: str | None


def connect(url: str) -> Redis:
    """Open a lazily connected client for redis://, rediss:// or unix://.

    redis-py's own retries are off: they are silent, and JobQueue knows which calls may be repeated. JobQueue's three
    tries at a server that hangs take 6 s, well within a lease. Bytes that are no UTF-8 come as lone surrogates, which
    no message may hold: strict decoding would lose the whole reply, not only the job they are in.
    """
    return Redis.from_url(
        url,
        decode_responses=True,
        encoding_errors="surrogateescape",
        retry=Retry(NoBackoff(), 0),
        socket_timeout=2.0,
        socket_connect_timeout=2.0,
    )


class JobQueue:
    """Both ends of the protocol. Every method raises QueueUnavailableError when the server cannot be reached."""

    def __init__(
        self,
        redis: Redis,
        *,
        lease_s: float = LEASE_S,
        max_queued: int = MAX_QUEUED,
        max_attempts: int = MAX_ATTEMPTS,
        max_crashes: int = MAX_CRASHES,
    ) -> None:
        self._redis = redis
        self._lease_ms = round(lease_s * 1000)
        self._max_queued = max_queued
        self._max_attempts = max_attempts
        self._max_crashes = max_crashes
        folder = resources.files("app.jobs") / "lua"
        prelude = (folder / "prelude.lua").read_text()
        self._scripts = {
            file.name.removesuffix(".lua"): redis.register_script(_with_prelude(file.read_text(), prelude))
            for file in folder.iterdir()
            if file.name.endswith(".lua") and file.name != "prelude.lua"
        }

    # Gateway side

    async def submit(self, job: ImageJob) -> None:
        """Put a job in its model's lane. Raises QueueFullError or StorageFullError."""
        reply = await self._run("submit", job.id, job.tenant, job.model, job.model_dump_json(), self._max_queued)
        if reply[0] == "FULL":
            raise QueueFullError(job.model, int(reply[1]))

    async def read(self, tenant: str, job_id: str) -> JobRecord:
        """Fetch one record. Raises JobNotFoundError or UnreadableJobError."""
        [fields] = await self._run("read", tenant, job_id)
        if not fields:
            raise JobNotFoundError(job_id)
        return _record(job_id, fields)

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

    async def cancel(self, tenant: str, job_id: str) -> None:
        """Cancel a job wherever it is; a terminal job stays as it is. Raises JobNotFoundError."""
        if await self._run("cancel", job_id, tenant) == "MISSING":
            raise JobNotFoundError(job_id)

    async def stats(self) -> QueueStats:
        in_progress, delayed, dead, lanes, workers = await self._run("stats")
        return QueueStats(
            lanes={
                lane: LaneStats(queued=queued, oldest_s=oldest_ms / 1000)
                for lane, queued, oldest_ms in zip(lanes[::3], lanes[1::3], lanes[2::3], strict=True)
            },
            in_progress=in_progress,
            delayed=delayed,
            dead=dead,
            workers=tuple(_worker_infos(workers)),
        )

    # Worker side

    async def claim(self, worker: str, token: str, lanes: Sequence[str], most: int) -> list[Claim]:
        """Take up to `most` of the oldest jobs of these lanes, with a lease. Asking again with one token is safe.

        A job that this version cannot read fails, and the others are returned.
        """
        claims = []
        for job_id, spec in await self._run("claim", token, worker, most, self._lease_ms, *lanes):
            try:
                claims.append(Claim(job=ImageJob.model_validate_json(spec), token=token))
            except ValueError:
                log.error("job_unreadable", job_id=job_id)
                with suppress(QueueUnavailableError):  # the others are in hand; this one's lease ends by itself
                    await self._run("fail", job_id, token, _UNREADABLE.model_dump_json(), -1, self._max_attempts)
        return claims

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
        words = [word for claim, report in reports for word in (claim.job.id, claim.token, report.model_dump_json())]
        return [Verdict(word) for word in await self._run("progress", *words)]

    async def complete(self, claim: Claim, result: JobResult) -> Verdict:
        """Make the result visible, if the job is still this claim's."""
        return Verdict(await self._run("complete", claim.job.id, claim.token, result.model_dump_json()))

    async def fail(self, claim: Claim, error: JobError, *, retry_after_s: float = 1.0) -> Verdict:
        """End the job with an error, or put it back for later when the error is retryable and attempts are left."""
        retry_ms = round(retry_after_s * 1000) if error.retryable else -1
        return Verdict(
            await self._run("fail", claim.job.id, claim.token, error.model_dump_json(), retry_ms, self._max_attempts)
        )

    async def release(self, claims: Sequence[Claim]) -> list[Verdict]:
        """Hand jobs back unfinished, to their old place in line."""
        if not claims:
            return []
        pairs = [word for claim in claims for word in (claim.job.id, claim.token)]
        return [Verdict(word) for word in await self._run("release", *pairs)]

    async def heartbeat(self, info: WorkerInfo, *, forget_after_s: float) -> None:
        """Say that a worker lives; with 0 seconds, that it is gone."""
        await self._run("heartbeat", info.id, info.model_dump_json(), round(forget_after_s * 1000))

    @asynccontextmanager
    async def wakes(self) -> AsyncIterator[AsyncIterator[str]]:
        """Listen for lanes that got work. A missed message costs only the listener's own fallback interval."""
        async with self._redis.pubsub() as pubsub:
            with _translated_errors():
                await pubsub.subscribe(WAKE_CHANNEL)
            yield _messages(pubsub)

    # Anyone

    async def tick(self) -> Tick:
        """Move what time has moved: expired leases back to their lanes, due retries too."""
        reply = await self._run("tick", self._max_crashes, WORKER_LOST.model_dump_json(), 100)
        return Tick(*reply)

    async def ping(self) -> None:
        """Raise QueueUnavailableError unless the server answers."""
        with _translated_errors():
            await self._redis.ping()

    async def _records(self, tenant: str, job_ids: Sequence[str]) -> tuple[JobRecord, ...]:
        if not job_ids:
            return ()
        records = []
        for job_id, fields in zip(job_ids, await self._run("read", tenant, *job_ids), strict=True):
            try:
                if fields:
                    records.append(_record(job_id, fields))
            except UnreadableJobError:
                log.error("job_unreadable", job_id=job_id)
        return tuple(records)

    async def _run(self, name: str, *args: str | int) -> Any:
        # A connection that died while idle is found out only by its next use, and every script may be asked again.
        for delay_s in _RETRY_DELAYS_S:
            try:
                return await self._run_once(name, *args)
            except QueueUnavailableError:
                await asyncio.sleep(delay_s)
        return await self._run_once(name, *args)

    async def _run_once(self, name: str, *args: str | int) -> Any:
        with _translated_errors():
            return await self._scripts[name](keys=[PREFIX], args=args)


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except redis_errors.OutOfMemoryError as error:
        raise StorageFullError(str(error)) from error
    except (
        redis_errors.ConnectionError,
        redis_errors.TimeoutError,
        redis_errors.ReadOnlyError,
        redis_errors.ClusterDownError,
        OSError,
    ) as error:
        raise QueueUnavailableError(str(error)) from error
    except redis_errors.ResponseError as error:
        # Its disk fails, its replicas are gone or somebody's script hangs: a server that refuses is as good as away.
        if str(error).startswith(("MISCONF", "NOREPLICAS", "BUSY")):
            raise QueueUnavailableError(str(error)) from error
        raise


async def _messages(pubsub: PubSub) -> AsyncIterator[str]:
    while True:
        with _translated_errors():
            message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=1.0)
        if message is not None:
            yield message["data"]


def _with_prelude(script: str, prelude: str) -> str:
    # The #! line with the script's flags must stay first.
    shebang, body = script.split("\n", 1)
    return f"{shebang}\n{prelude}{body}"


def _record(job_id: str, flat: Sequence[str]) -> JobRecord:
    fields = dict(zip(flat[::2], flat[1::2], strict=True))

    def number(name: str) -> int | None:
        return int(fields[name]) if name in fields else None

    try:
        return JobRecord(
            job=ImageJob.model_validate_json(fields["spec"]),
            state=JobState(fields["state"]),
            attempts=int(fields["attempts"]),
            crashes=int(fields["crashes"]),
            worker=fields.get("worker"),
            submitted_ms=int(fields["submitted_ms"]),
            started_ms=number("started_ms"),
            finished_ms=number("finished_ms"),
            progress=Progress.model_validate_json(fields["progress"]) if "progress" in fields else None,
            result=JobResult.model_validate_json(fields["result"]) if "result" in fields else None,
            error=JobError.model_validate_json(fields["error"]) if "error" in fields else None,
            position=number("position"),
        )
    except (KeyError, ValueError) as error:
        raise UnreadableJobError(job_id) from error


def _worker_infos(messages: Sequence[str]) -> Iterator[WorkerInfo]:
    for message in messages:
        try:
            yield WorkerInfo.model_validate_json(message)
        except ValueError:
            # Another version's worker: the queue's counts matter more than its name.
            log.warning("worker_unreadable", info=message)
