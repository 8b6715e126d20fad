"""Jobs that are canceled unless they are over by a given time, which the server's clock and its memory decide."""

import pytest
from redis.asyncio import Redis

from app.jobs.keys import PREFIX
from app.jobs.queue import Idempotency, JobQueue, Tick, Verdict
from app.jobs.schema import JobState
from app.jobs.upkeep import Upkeep
from tests.integration.queue_lab import FINAL, LANE, RESULT, RETRYABLE, claim_one, keyspace, numbered, pass_time

AFTER_S = 100


@pytest.fixture
def queue(valkey: Redis) -> JobQueue:
    return JobQueue(valkey, lease_s=1000, max_crashes=1)


async def states(queue: JobQueue, *numbers: int) -> list[JobState]:
    return [(await queue.read("default", numbered(number).id)).state for number in numbers]


async def test_it_is_canceled_when_its_time_is_up_wherever_it_is(queue: JobQueue, valkey: Redis) -> None:
    for number in (1, 2, 3):
        await queue.submit(numbered(number), cancel_after_s=AFTER_S)
    await queue.submit(numbered(4))
    delayed, held = await queue.claim("worker-1", "token-1", [LANE], 2)
    await queue.fail(delayed, RETRYABLE, retry_after_s=10_000)
    await queue.tick()
    await pass_time(valkey, AFTER_S - 1)
    assert await queue.tick() == Tick(0, 0, 0, 0)
    assert await states(queue, 1, 2, 3, 4) == [JobState.DELAYED, JobState.IN_PROGRESS, JobState.QUEUED, JobState.QUEUED]
    await pass_time(valkey, 2)
    # Another gateway, as after a restart: the server remembers.
    tick = await JobQueue(valkey).tick()
    assert (tick, sorted(tick.ended)) == (Tick(0, 0, 2, 0), [(LANE, JobState.CANCELED)] * 2)
    assert await states(queue, 1, 2, 3, 4) == [
        JobState.CANCELED,
        JobState.CANCELING,
        JobState.CANCELED,
        JobState.QUEUED,
    ]
    assert await queue.tick() == Tick(0, 0, 0, 0)
    assert await queue.complete(held, RESULT) is Verdict.CANCEL
    assert await states(queue, 2) == [JobState.CANCELED]
    assert (await claim_one(queue, "token-2")).job == numbered(4)
    assert "cancel_after" not in await keyspace(valkey)


@pytest.mark.parametrize("end", ["completed", "failed", "canceled", "dead"])
async def test_what_is_over_by_then_stays_as_it_is_and_nothing_is_left(
    queue: JobQueue, valkey: Redis, end: str
) -> None:
    await queue.tick()
    await queue.submit(numbered(1), cancel_after_s=AFTER_S)
    claim = await claim_one(queue)
    match end:
        case "completed":
            await queue.complete(claim, RESULT)
        case "failed":
            await queue.fail(claim, FINAL)
        case "canceled":
            await queue.release([claim])
            await queue.cancel("default", numbered(1).id)
        case _:
            await valkey.zadd(PREFIX + "lease", {numbered(1).id: 0})
            await queue.tick()
    assert "cancel_after" not in await keyspace(valkey)
    await pass_time(valkey, AFTER_S + 1)
    await queue.tick()
    assert await states(queue, 1) == [JobState(end)]


async def test_a_dead_job_that_is_revived_has_its_time_again(queue: JobQueue, valkey: Redis) -> None:
    await queue.tick()
    await queue.submit(numbered(1), cancel_after_s=AFTER_S)
    await claim_one(queue)
    await valkey.zadd(PREFIX + "lease", {numbered(1).id: 0})
    await queue.tick()
    await Upkeep(valkey).revive([numbered(1).id])
    await pass_time(valkey, AFTER_S + 1)
    await queue.tick()
    assert await states(queue, 1) == [JobState.QUEUED]


async def test_a_request_that_came_before_keeps_its_own_time(queue: JobQueue, valkey: Redis) -> None:
    first = Idempotency("key", "body")
    await queue.submit(numbered(1), idempotency=first)
    assert await queue.submit(numbered(2), idempotency=first, cancel_after_s=AFTER_S) == numbered(1).id
    await queue.submit(numbered(1), cancel_after_s=AFTER_S)  # a lost reply, asked again
    assert "cancel_after" not in await keyspace(valkey)


async def test_more_than_one_tick_takes_are_canceled_by_the_next(queue: JobQueue, valkey: Redis) -> None:
    for number in range(150):
        await queue.submit(numbered(number), cancel_after_s=AFTER_S)
    await queue.tick()
    await pass_time(valkey, AFTER_S + 1)
    assert [(await queue.tick()).canceled for _ in range(3)] == [100, 50, 0]
