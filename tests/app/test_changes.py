"""Waiting for a job's record to change: woken by a message, never by it alone, and at the price of one read for all."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager

import pytest
from redis.asyncio import Redis

from app import changes as module
from app.changes import Changes, Waiter
from app.jobs.errors import JobNotFoundError, QueueError, QueueUnavailableError
from app.jobs.keys import PREFIX
from app.jobs.queue import JobQueue
from app.jobs.schema import JobRecord, JobState, Progress, Stage
from app.jobs.scripts import connect
from tests.app.gateway import drawn
from tests.conftest import make_job
from tests.integration.queue_lab import until
from tests.integration.servers import Server, serving
from tests.system.proxy import Mode, proxied

JOB = make_job()
LONG_S = 10.0


class CountedQueue(JobQueue):
    """The queue, and what is read from it; `go` holds up the replies."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        self.read_ids: list[str] = []
        self.go = asyncio.Event()
        self.go.set()

    async def read_many(self, tenant: str, job_ids: Sequence[str]) -> list[JobRecord | QueueError]:
        self.read_ids += job_ids
        records = await super().read_many(tenant, job_ids)
        await self.go.wait()
        return records


@asynccontextmanager
async def running(queue: JobQueue) -> AsyncIterator[Changes]:
    changes = Changes(queue)
    task = asyncio.create_task(changes.run())
    try:
        yield changes
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def counted(valkey: Redis) -> CountedQueue:
    return CountedQueue(valkey)


@pytest.fixture
def only_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read again for the mere passing of time."""
    monkeypatch.setattr(module, "READ_EVERY_S", 1000.0)


async def listening(redis: Redis, lines: int = 1) -> None:
    async def listens() -> bool:
        [(_, listeners)] = await redis.pubsub_numsub(PREFIX + "changed")
        return bool(listeners == lines)

    await until(listens)


async def state(waiter: Waiter) -> JobState:
    record = await waiter.next(LONG_S)
    assert record is not None
    return record.state


@pytest.mark.usefixtures("only_messages")
async def test_a_message_wakes_who_waits(queue: JobQueue, valkey: Redis) -> None:
    await queue.submit(JOB)
    async with running(queue) as changes:
        await listening(valkey)
        with changes.watch("default", JOB.id) as waiter:
            assert await state(waiter) is JobState.QUEUED
            [claim] = await queue.claim("worker-1", "token", ["tiny-sd3"], 1)
            assert await state(waiter) is JobState.IN_PROGRESS
            await queue.complete(claim, drawn(claim.job, "token"))
            assert await state(waiter) is JobState.COMPLETED


async def test_what_no_message_told_is_found_all_the_same(queue: JobQueue, valkey: Redis) -> None:
    await queue.submit(JOB)
    async with running(queue) as changes:
        with changes.watch("default", JOB.id) as waiter:
            assert await state(waiter) is JobState.QUEUED
            await valkey.hset(f"{PREFIX}job:{JOB.id}", "state", "canceling")
            assert await state(waiter) is JobState.CANCELING


async def test_what_did_not_change_wakes_nobody(queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_EVERY_S", 0.02)
    await queue.submit(JOB)
    await queue.cancel("default", JOB.id)
    async with running(queue) as changes:
        with changes.watch("default", JOB.id) as waiter:
            assert await state(waiter) is JobState.CANCELED
            assert await waiter.next(0.2) is None


@pytest.mark.usefixtures("only_messages")
async def test_all_who_wait_for_a_job_share_one_line_and_one_read_a_change(
    counted: CountedQueue, valkey: Redis
) -> None:
    await counted.submit(JOB)
    async with running(counted) as changes:
        await listening(valkey)
        with ExitStack() as stack:
            waiters = [stack.enter_context(changes.watch("default", JOB.id)) for _ in range(500)]
            assert {await state(waiter) for waiter in waiters} == {JobState.QUEUED}
            assert counted.read_ids == [JOB.id]
            await counted.claim("worker-1", "token", ["tiny-sd3"], 1)
            assert {await state(waiter) for waiter in waiters} == {JobState.IN_PROGRESS}
            assert counted.read_ids == [JOB.id] * 2
            await listening(valkey, 1)
            assert changes.waiters == 500
        assert changes.waiters == 0
        # Nobody waits for it any more: a change is nobody's business.
        await counted.cancel("default", JOB.id)
        await asyncio.sleep(0.1)
        assert counted.read_ids == [JOB.id] * 2


@pytest.mark.usefixtures("only_messages")
async def test_who_comes_during_a_read_is_not_told_what_it_was_before(counted: CountedQueue) -> None:
    await counted.submit(JOB)
    async with running(counted) as changes:
        with changes.watch("default", JOB.id) as first:
            counted.go.clear()
            await until(lambda: _true(counted.read_ids))
            await counted.cancel("default", JOB.id)
            with changes.watch("default", JOB.id) as second:
                counted.go.set()
                assert await state(first) is JobState.QUEUED
                assert await state(second) is JobState.CANCELED


async def test_anothers_job_is_not_there_and_one_that_is_gone_is_not_either(queue: JobQueue, valkey: Redis) -> None:
    await queue.submit(JOB)
    async with running(queue) as changes:
        with changes.watch("default", JOB.id) as owner, changes.watch("bob", JOB.id) as bob:
            assert await state(owner) is JobState.QUEUED
            with pytest.raises(JobNotFoundError):
                await bob.next(LONG_S)
            await valkey.delete(f"{PREFIX}job:{JOB.id}")
            with pytest.raises(JobNotFoundError):
                await owner.next(LONG_S)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


async def test_an_outage_is_told_and_heals_by_itself(server: Server) -> None:
    async with connect(server.url) as redis:
        queue = JobQueue(redis)
        async with running(queue) as changes:
            await listening(redis)
            server.kill()
            with changes.watch("default", JOB.id) as waiter, pytest.raises(QueueUnavailableError):
                await waiter.next(LONG_S)
            server.start()
            await listening(redis)
            await queue.submit(JOB)
            with changes.watch("default", JOB.id) as waiter:
                assert await state(waiter) is JobState.QUEUED


@pytest.mark.usefixtures("only_messages")
async def test_a_line_that_died_in_silence_is_noticed(
    valkey: Redis, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SILENCE_S", 0.5)
    queue = JobQueue(valkey)
    await queue.submit(JOB)
    async with proxied(valkey_url) as proxy, connect(proxy.url) as far, running(JobQueue(far)) as changes:
        await listening(valkey)
        with changes.watch("default", JOB.id) as waiter:
            assert await state(waiter) is JobState.QUEUED
            proxy.set(Mode.HALF_OPEN)  # what is open now hangs for ever
            proxy.set(Mode.PASS)
            [claim] = await queue.claim("worker-1", "token", ["tiny-sd3"], 1)

            async def is_told() -> bool:
                # Again and again: the line may be between two subscriptions.
                await queue.progress([(claim, Progress(stage=Stage.DENOISE, step=1, total_steps=4))])
                record = await waiter.next(0.05)
                return record is not None and record.progress is not None

            await until(is_told)


async def _true(thing: object) -> bool:
    return bool(thing)
