"""A client's own name for a request makes one job of it, however often and by whichever way it is sent."""

import asyncio

import pytest
from redis.asyncio import Redis

from app.jobs.errors import JobNotFoundError, KeyReusedError, QueueFullError
from app.jobs.keys import PREFIX
from app.jobs.queue import IDEMPOTENCY_S, Idempotency, JobQueue
from app.jobs.schema import ImageJob, JobState
from app.jobs.upkeep import Purged, Upkeep
from tests.integration.queue_lab import LANE, RESULT, claim_one, keyspace, numbered, submit

KEY = Idempotency("order-17", "hash of the body")
OTHER_BODY = Idempotency("order-17", "hash of another body")


async def send(queue: JobQueue, number: int, key: Idempotency = KEY, **changes: object) -> str:
    return await queue.submit(numbered(number, **changes), idempotency=key)


async def test_the_same_request_is_the_same_job(queue: JobQueue, valkey: Redis) -> None:
    assert await send(queue, 1) == numbered(1).id
    before = await keyspace(valkey)
    for number in (2, 3, 1):
        assert await send(queue, number) == numbered(1).id
    assert await keyspace(valkey) == before


@pytest.mark.parametrize("state", [JobState.IN_PROGRESS, JobState.COMPLETED, JobState.CANCELED])
async def test_it_is_so_wherever_the_job_is(queue: JobQueue, state: JobState) -> None:
    await send(queue, 1)
    claim = await claim_one(queue)
    if state is JobState.COMPLETED:
        await queue.complete(claim, RESULT)
    elif state is JobState.CANCELED:
        await queue.cancel("default", claim.job.id)
        await queue.renew([claim])
    assert await send(queue, 2) == numbered(1).id
    assert (await queue.read("default", numbered(1).id)).state is state
    with pytest.raises(JobNotFoundError):
        await queue.read("default", numbered(2).id)


async def test_another_request_under_the_name_is_refused(queue: JobQueue, valkey: Redis) -> None:
    await send(queue, 1)
    before = await keyspace(valkey)
    with pytest.raises(KeyReusedError):
        await send(queue, 2, OTHER_BODY)
    assert await keyspace(valkey) == before


async def test_names_are_a_tenants_own(queue: JobQueue) -> None:
    assert await send(queue, 1, tenant="ours") == numbered(1).id
    assert await send(queue, 2, OTHER_BODY, tenant="theirs") == numbered(2).id
    assert await send(queue, 3, tenant="ours") == numbered(1).id


async def test_requests_without_a_name_are_all_different(queue: JobQueue, valkey: Redis) -> None:
    await submit(queue, 1, 2)
    assert (await queue.stats()).lanes[LANE].queued == 2
    assert not await valkey.keys(PREFIX + "idem:*")


async def test_a_hundred_at_once_make_one_job(queue: JobQueue) -> None:
    given = await asyncio.gather(*(send(queue, number) for number in range(100)))
    assert len(set(given)) == 1
    stats = await queue.stats()
    assert (stats.lanes[LANE].queued, stats.totals) == (1, {"submitted": 1})


async def test_a_full_lane_still_knows_the_request(valkey: Redis) -> None:
    queue = JobQueue(valkey, max_queued=1)
    await send(queue, 1)
    assert await send(queue, 2) == numbered(1).id
    with pytest.raises(QueueFullError):
        await send(queue, 3, Idempotency("order-18", "hash"))
    await queue.cancel("default", numbered(1).id)
    assert await send(queue, 3, Idempotency("order-18", "hash")) == numbered(3).id  # a refusal used no name up


async def test_the_name_dies_with_the_job(queue: JobQueue, valkey: Redis) -> None:
    await send(queue, 1)
    await queue.cancel("default", numbered(1).id)
    assert await Upkeep(valkey).purge("default", [numbered(1).id]) == [Purged.OK]
    assert await keyspace(valkey) == {
        name: value for name, value in (await keyspace(valkey)).items() if "idem" not in name
    }
    assert await send(queue, 2, OTHER_BODY) == numbered(2).id


async def test_a_name_used_again_after_its_day_outlives_the_first_job(queue: JobQueue, valkey: Redis) -> None:
    await send(queue, 1)
    await queue.cancel("default", numbered(1).id)
    assert IDEMPOTENCY_S - 60 < await valkey.ttl(PREFIX + "idem:default:order-17") <= IDEMPOTENCY_S
    await valkey.pexpire(PREFIX + "idem:default:order-17", 0)
    assert await send(queue, 2) == numbered(2).id
    await Upkeep(valkey).purge("default", [numbered(1).id])
    assert await send(queue, 3) == numbered(2).id


async def test_a_name_may_be_anything(queue: JobQueue) -> None:
    names = ["a:b", "{q}", "*", "ключ", "x" * 255, "a b\n"]
    jobs: list[ImageJob] = [numbered(number) for number in range(len(names))]
    for name, job in zip(names, jobs, strict=True):
        assert await queue.submit(job, idempotency=Idempotency(name, "hash")) == job.id
    for number, name in enumerate(names):
        assert await send(queue, 100 + number, Idempotency(name, "hash")) == jobs[number].id
