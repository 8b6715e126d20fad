"""What time does to jobs: leases end, retries fall due, and both have limits."""

import asyncio

import pytest
from redis.asyncio import Redis

from app.jobs.keys import PREFIX
from app.jobs.queue import WORKER_LOST, JobQueue, Tick, Verdict
from app.jobs.schema import ErrorCode, JobState
from tests.integration.queue_lab import (
    FINAL,
    LANE,
    PROGRESS,
    RESULT,
    RETRYABLE,
    claim_one,
    keyspace,
    numbered,
    pass_time,
    submit,
)


async def test_a_lost_job_goes_back_to_its_old_place(queue: JobQueue, valkey: Redis) -> None:
    await submit(queue, 1, 2, 3)
    claims = await queue.claim("worker-1", "token-1", [LANE], 2)
    await queue.progress([(claims[0], PROGRESS)])
    assert await queue.tick() == Tick(requeued=0, dead=0, canceled=0, retried=0)
    await pass_time(valkey, 2)
    assert await queue.tick() == Tick(requeued=2, dead=0, canceled=0, retried=0)
    assert await queue.tick() == Tick(requeued=0, dead=0, canceled=0, retried=0)
    record = await queue.read("default", numbered(1).id)
    assert (record.state, record.attempts, record.crashes, record.position) == (JobState.QUEUED, 1, 1, 0)
    assert (record.progress, record.worker) == (None, None)
    for number in (1, 2, 3):
        claim = await claim_one(queue, f"token-{number}", "worker-2")
        assert (claim.job, claim.alone) == (numbered(number), number < 3)
        assert claim.lost_steps == (PROGRESS.step if number == 1 else 0)
        await queue.complete(claim, RESULT)


async def test_a_lease_really_ends_by_the_servers_clock(valkey: Redis) -> None:
    queue = JobQueue(valkey, lease_s=0.3)
    await submit(queue, 1)
    claim = await claim_one(queue)
    await asyncio.sleep(0.2)
    assert await queue.renew([claim]) == [Verdict.OK]
    await asyncio.sleep(0.15)
    assert (await queue.tick()).requeued == 0
    await asyncio.sleep(0.2)
    assert (await queue.tick()).requeued == 1
    assert await queue.renew([claim]) == [Verdict.LOST]


async def test_a_job_that_loses_worker_after_worker_is_dead(valkey: Redis) -> None:
    queue = JobQueue(valkey, lease_s=1, max_crashes=3)
    await submit(queue, 1)
    for crashes in (1, 2, 3):
        await claim_one(queue, f"token-{crashes}")
        await pass_time(valkey, 2)
        assert await queue.tick() == Tick(requeued=int(crashes < 3), dead=int(crashes == 3), canceled=0, retried=0)
        record = await queue.read("default", numbered(1).id)
        assert record.crashes == crashes
    assert (record.state, record.error) == (JobState.DEAD, WORKER_LOST)
    assert WORKER_LOST.code is ErrorCode.WORKER_LOST
    assert record.finished_ms is not None
    keys = await keyspace(valkey)
    assert keys["dead"].keys() == {numbered(1).id}
    assert keys.keys().isdisjoint({"lease", "delayed", f"suspects:{LANE}"})
    await pass_time(valkey, 1000)
    assert await queue.tick() == Tick(requeued=0, dead=0, canceled=0, retried=0)


async def test_a_canceled_job_whose_worker_died_is_canceled(queue: JobQueue, valkey: Redis) -> None:
    await submit(queue, 1)
    await claim_one(queue)
    await queue.cancel("default", numbered(1).id)
    await pass_time(valkey, 2)
    assert await queue.tick() == Tick(requeued=0, dead=0, canceled=1, retried=0)
    record = await queue.read("default", numbered(1).id)
    assert (record.state, record.crashes) == (JobState.CANCELED, 0)


async def test_a_retry_waits_its_time_and_then_has_its_old_place(queue: JobQueue, valkey: Redis) -> None:
    await submit(queue, 1, 2)
    claim = await claim_one(queue)
    await queue.progress([(claim, PROGRESS)])
    assert await queue.fail(claim, RETRYABLE, retry_after_s=60) is Verdict.OK
    record = await queue.read("default", claim.job.id)
    assert (record.state, record.error, record.finished_ms) == (JobState.DELAYED, RETRYABLE, None)
    await pass_time(valkey, 59)
    assert (await queue.tick()).retried == 0
    await pass_time(valkey, 1)
    await asyncio.sleep(0.002)
    assert await queue.tick() == Tick(requeued=0, dead=0, canceled=0, retried=1)
    record = await queue.read("default", claim.job.id)
    assert (record.state, record.attempts, record.position, record.progress) == (JobState.QUEUED, 1, 0, None)
    assert (await claim_one(queue, "token-2")).job == claim.job


async def test_attempts_have_a_limit(valkey: Redis) -> None:
    queue = JobQueue(valkey, max_attempts=3)
    await submit(queue, 1)
    for attempt in (1, 2, 3):
        claim = await claim_one(queue, f"token-{attempt}")
        assert await queue.fail(claim, RETRYABLE) is Verdict.OK
        await pass_time(valkey, 5)
        assert (await queue.tick()).retried == int(attempt < 3)
    record = await queue.read("default", numbered(1).id)
    assert (record.state, record.attempts, record.error) == (JobState.FAILED, 3, RETRYABLE)
    assert await queue.claim("worker-1", "token-4", [LANE], 1) == []


async def test_a_release_leaves_all_attempts(valkey: Redis) -> None:
    queue = JobQueue(valkey, max_attempts=2)
    await submit(queue, 1)
    for number in range(5):
        await queue.release([await claim_one(queue, f"drain-{number}")])
    await queue.fail(await claim_one(queue, "token-1"), RETRYABLE)
    assert (await queue.read("default", numbered(1).id)).state is JobState.DELAYED


async def test_what_cannot_be_retried_fails_at_once(queue: JobQueue, valkey: Redis) -> None:
    await submit(queue, 1)
    await queue.fail(await claim_one(queue), FINAL)
    record = await queue.read("default", numbered(1).id)
    assert (record.state, record.error) == (JobState.FAILED, FINAL)
    assert "dead" not in await keyspace(valkey)


@pytest.mark.parametrize("waits", ["lease", "delayed"])
async def test_one_tick_moves_a_bounded_number_the_longest_due_first(valkey: Redis, waits: str) -> None:
    queue = JobQueue(valkey, lease_s=1)
    await submit(queue, *range(130))
    claims = await queue.claim("worker-1", "token-1", [LANE], 130)
    if waits == "delayed":
        for claim in claims:
            await queue.fail(claim, RETRYABLE)
    await valkey.zadd(PREFIX + waits, {claim.job.id: 1000 - place for place, claim in enumerate(claims)})
    moved = await queue.tick()
    assert moved.requeued + moved.retried == 100
    place = "suspects" if waits == "lease" else "front"
    assert (await keyspace(valkey))[f"{place}:{LANE}"].keys() == {numbered(number).id for number in range(30, 130)}
    moved = await queue.tick()
    assert moved.requeued + moved.retried == 30


async def test_many_ticks_at_once_move_each_job_once(queue: JobQueue, valkey: Redis) -> None:
    await submit(queue, *range(20))
    await queue.claim("worker-1", "token-1", [LANE], 20)
    await pass_time(valkey, 2)
    ticks = await asyncio.gather(*(queue.tick() for _ in range(30)))
    assert sum(tick.requeued for tick in ticks) == 20
    assert {(await queue.read("default", numbered(number).id)).crashes for number in range(20)} == {1}


async def test_each_retry_waits_twice_as_long_as_the_one_before(valkey: Redis) -> None:
    queue = JobQueue(valkey, max_attempts=9)
    await submit(queue, 1)
    for attempt, delay_s in enumerate((4, 8, 16, 32, 60, 60)):
        await queue.fail(await claim_one(queue, f"token-{attempt}"), RETRYABLE, retry_after_s=4)
        await pass_time(valkey, delay_s - 1)
        assert (await queue.tick()).retried == 0
        await pass_time(valkey, 1.1)
        assert (await queue.tick()).retried == 1


async def test_an_outage_of_the_queue_is_nobodys_crash(valkey: Redis) -> None:
    queue = JobQueue(valkey, lease_s=1, max_crashes=1, max_attempts=2)
    await submit(queue, 1, 2)
    await queue.tick()
    await claim_one(queue)
    await pass_time(valkey, 30, ticked=False)
    assert await queue.tick() == Tick(requeued=1, dead=0, canceled=0, retried=0, blameless=1)
    claim = await claim_one(queue, "token-2")
    assert (claim.job, claim.alone, claim.started_before) == (numbered(1), False, True)
    await pass_time(valkey, 30, ticked=False)
    assert (await queue.tick()).dead == 1  # for ever in the middle of outages is a reason to suspect it


async def test_a_lease_that_ends_just_after_an_outage_ran_through_it(valkey: Redis) -> None:
    queue = JobQueue(valkey, lease_s=5, max_crashes=1)
    await submit(queue, 1)
    await queue.tick()
    await claim_one(queue)
    await pass_time(valkey, 4, ticked=False)
    assert (await queue.tick()).requeued == 0
    await pass_time(valkey, 2)
    assert await queue.tick() == Tick(requeued=1, dead=0, canceled=0, retried=0, blameless=1)
    await claim_one(queue, "token-2")
    await pass_time(valkey, 6)
    assert (await queue.tick()).dead == 1
