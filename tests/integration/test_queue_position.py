"""What a queued job is told: how many go before it, and when it should start."""

import random
from collections.abc import Sequence

import pytest
from redis.asyncio import Redis

from app.jobs.queue import JobQueue
from app.jobs.schema import ImageJob, JobRecord, Priority
from app.jobs.upkeep import Upkeep
from tests.integration.queue_lab import (
    LANE,
    OTHER_LANE,
    RETRYABLE,
    WORKER,
    claim_one,
    ids,
    numbered,
    pass_time,
    submit,
)


async def records(queue: JobQueue, jobs: Sequence[ImageJob]) -> list[JobRecord]:
    return [await queue.read(job.tenant, job.id) for job in jobs]


async def is_claimed_as_told(queue: JobQueue, jobs: Sequence[ImageJob]) -> None:
    told = {record.position: record.job.id for record in await records(queue, jobs)}
    claimed = await queue.claim("worker-1", "all", [LANE], len(jobs))
    assert [told[position] for position in range(len(jobs))] == ids(claimed)


async def test_in_one_flow_it_is_the_place_in_line(queue: JobQueue) -> None:
    jobs = await submit(queue, *range(20))
    await queue.claim("worker-1", "some", [LANE], 5)
    assert [record.position for record in await records(queue, jobs[5:])] == list(range(15))


@pytest.mark.parametrize("seed", range(6))
async def test_among_equal_costs_it_is_the_order_in_which_they_are_claimed(
    queue: JobQueue, valkey: Redis, seed: int
) -> None:
    draw = random.Random(seed)
    if seed % 2:
        await Upkeep(valkey).weigh("tenant-1", 3)
    jobs: list[ImageJob] = []
    for number in range(60):
        tenant, priority = f"tenant-{draw.randrange(4)}", draw.choice(list(Priority))
        jobs += await submit(queue, number, tenant=tenant, priority=priority)
        if draw.random() < 0.3:
            claims = await queue.claim("worker-1", f"token-{number}", [LANE], draw.randrange(3))
            jobs = [job for job in jobs if job.id not in ids(claims)]
    await is_claimed_as_told(queue, jobs)


async def test_those_taken_before_are_ahead(queue: JobQueue, valkey: Redis) -> None:
    queue = JobQueue(valkey, lease_s=1.0, max_crashes=3)
    crashed, failed, released, fresh, newer = await submit(queue, *range(5))
    await queue.tick()
    await claim_one(queue, "crashes")
    await queue.fail(await claim_one(queue, "fails"), RETRYABLE)
    claim = await claim_one(queue, "is released")
    await pass_time(valkey, 2)
    claim_renewed = await queue.release([claim])
    assert claim_renewed
    moved = await queue.tick()
    assert (moved.requeued, moved.retried) == (1, 1)
    jobs = (crashed, failed, released, fresh, newer)
    assert [record.position for record in await records(queue, jobs)] == [0, 1, 2, 3, 4]


async def test_other_lanes_do_not_count(queue: JobQueue) -> None:
    await submit(queue, *range(10), model=OTHER_LANE, priority=Priority.HIGH)
    [job] = await submit(queue, 20)
    assert (await queue.read("default", job.id)).position == 0


async def test_of_more_flows_than_are_looked_at_it_is_an_estimate(queue: JobQueue) -> None:
    for number in range(300):
        await submit(queue, number, tenant=f"tenant-{number}")
    await submit(queue, 1000, 1001, tenant="ours")
    position = (await queue.read("ours", numbered(1001).id)).position
    assert position is not None
    assert 290 <= position <= 320


async def test_until_a_claim_was_seen_the_start_is_told_by_costs_and_workers(queue: JobQueue) -> None:
    jobs = [numbered(number) for number in range(3)]
    for job in jobs:
        await queue.submit(job, cost_s=6)
    assert [record.start_in_s for record in await records(queue, jobs)] == [6, 12, 18]
    for name in ("worker-1", "worker-2"):
        await queue.heartbeat(WORKER.model_copy(update={"id": name}), forget_after_s=60)
    assert [record.start_in_s for record in await records(queue, jobs)] == [3, 6, 9]


async def test_the_start_is_told_by_the_pace_of_claims(queue: JobQueue, valkey: Redis) -> None:
    jobs = await submit(queue, *range(20))
    for turn in range(10):
        await pass_time(valkey, 4)
        await claim_one(queue, f"token-{turn}")
    told = [record.start_in_s for record in await records(queue, jobs[10:])]
    for place, start_in_s in enumerate(told):
        assert start_in_s is not None
        assert 0.8 * 4 * (place + 1) <= start_in_s <= 1.1 * 4 * (place + 1)
    stats = await queue.stats()
    assert 3.2 <= stats.lanes[LANE].pace_s <= 4.4


async def test_who_is_further_back_starts_later(queue: JobQueue, valkey: Redis) -> None:
    jobs = [numbered(number, tenant=f"tenant-{number % 3}") for number in range(30)]
    for number, job in enumerate(jobs):
        await queue.submit(job, cost_s=1 + number % 5)
    for turn in range(5):
        await pass_time(valkey, 1)
        await claim_one(queue, f"token-{turn}")
    waiting = [record for record in await records(queue, jobs) if record.position is not None]
    waiting.sort(key=lambda record: record.position or 0)
    starts = [record.start_in_s or 0 for record in waiting]
    assert starts == sorted(starts)
    for tenant in range(3):
        own = [record.position for record in waiting if record.job.tenant == f"tenant-{tenant}"]
        own_in_order = [
            record.position
            for record in sorted(waiting, key=lambda record: record.job.id)
            if record.job.tenant == f"tenant-{tenant}"
        ]
        assert own == own_in_order


async def test_what_does_not_wait_in_line_has_no_place(queue: JobQueue) -> None:
    held, delayed, canceled = await submit(queue, 1, 2, 3)
    await claim_one(queue, "token-1")
    await queue.fail(await claim_one(queue, "token-2"), RETRYABLE)
    await queue.cancel("default", canceled.id)
    for record in await records(queue, [held, delayed, canceled]):
        assert (record.position, record.start_in_s) == (None, None)
