"""What a claim tells of a job's past: how old it is, and whether somebody began it."""

import asyncio

from redis.asyncio import Redis

from app.jobs.queue import JobQueue
from tests.integration.queue_lab import LANE, PROGRESS, RETRYABLE, claim_one, pass_time, submit


async def test_a_job_ages_by_the_servers_clock_from_its_submission(queue: JobQueue, valkey: Redis) -> None:
    await submit(queue, 1)
    await pass_time(valkey, 90)
    await submit(queue, 2)
    await asyncio.sleep(0.02)
    older, newer = await queue.claim("worker-1", "token-1", [LANE], 2)
    assert 90.02 <= older.age_s < 95
    assert 0.02 <= newer.age_s < 5


async def test_a_later_attempt_does_not_make_it_younger(queue: JobQueue, valkey: Redis) -> None:
    await submit(queue, 1)
    await pass_time(valkey, 30)
    await queue.release([await claim_one(queue, "token-1")])
    await pass_time(valkey, 30)
    await claim_one(queue, "token-2")
    await pass_time(valkey, 30)
    assert (await queue.tick()).requeued == 1
    assert 90 <= (await claim_one(queue, "token-3")).age_s < 95


async def test_age_is_the_claims_own_moment_also_when_it_is_asked_again(queue: JobQueue, valkey: Redis) -> None:
    await submit(queue, 1)
    first = await claim_one(queue, "token-1")
    await asyncio.sleep(0.02)
    again = await claim_one(queue, "token-1")
    assert first.age_s + 0.02 <= again.age_s < first.age_s + 5


async def test_nobody_began_a_fresh_job(queue: JobQueue) -> None:
    await submit(queue, 1, 2)
    assert [claim.started_before for claim in await queue.claim("worker-1", "token-1", [LANE], 2)] == [False, False]


async def test_a_released_job_was_begun(queue: JobQueue) -> None:
    await submit(queue, 1, 2)
    await queue.release([await claim_one(queue, "token-1")])
    assert [claim.started_before for claim in await queue.claim("worker-2", "token-2", [LANE], 2)] == [True, False]


async def test_a_job_that_lost_its_worker_was_begun(queue: JobQueue, valkey: Redis) -> None:
    await submit(queue, 1)
    claim = await claim_one(queue, "token-1")
    await queue.progress([(claim, PROGRESS)])
    await pass_time(valkey, 2)
    assert (await queue.tick()).requeued == 1
    assert (await claim_one(queue, "token-2")).started_before


async def test_a_retried_job_was_begun(queue: JobQueue, valkey: Redis) -> None:
    await submit(queue, 1)
    await queue.fail(await claim_one(queue, "token-1"), RETRYABLE)
    await pass_time(valkey, 2)
    assert (await queue.tick()).retried == 1
    assert (await claim_one(queue, "token-2")).started_before


async def test_a_claim_asked_again_counts_as_begun(queue: JobQueue) -> None:
    await submit(queue, 1)
    assert not (await claim_one(queue, "token-1")).started_before
    assert (await claim_one(queue, "token-1")).started_before
