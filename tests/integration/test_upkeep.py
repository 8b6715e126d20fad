"""What keeps the queue in order: expiry, who holds bytes, the dead and their second life, purges, weights."""

import pytest
from redis.asyncio import Redis

from app.jobs.errors import JobNotFoundError
from app.jobs.keys import PREFIX
from app.jobs.queue import JobQueue
from app.jobs.schema import JobState
from app.jobs.upkeep import Hold, Holder, Purged, Upkeep
from tests.integration.queue_lab import (
    FINAL,
    LANE,
    RESULT,
    RETRYABLE,
    claim_one,
    ids,
    keyspace,
    numbered,
    pass_time,
    submit,
)

PICTURES_S, RECORD_S = 600, 300


@pytest.fixture
def queue(valkey: Redis) -> JobQueue:
    return JobQueue(valkey, lease_s=10, max_crashes=1)


@pytest.fixture
def upkeep(valkey: Redis) -> Upkeep:
    return Upkeep(valkey)


async def in_every_state(queue: JobQueue, valkey: Redis) -> dict[JobState, str]:
    """One job in each state, in the order of the states."""
    await queue.tick()
    jobs = dict(zip(JobState, ids(await submit(queue, *range(len(JobState)))), strict=True))
    claims = {claim.job.id: claim for claim in await queue.claim("worker-1", "token", [LANE], len(jobs))}
    await queue.fail(claims[jobs[JobState.FAILED]], FINAL)
    await queue.complete(claims[jobs[JobState.COMPLETED]], RESULT)
    await queue.release([claims[jobs[JobState.QUEUED]], claims[jobs[JobState.CANCELED]]])
    await queue.cancel("default", jobs[JobState.CANCELED])
    await valkey.zadd(PREFIX + "lease", {jobs[JobState.DEAD]: 0})
    await queue.tick()
    await queue.fail(claims[jobs[JobState.DELAYED]], RETRYABLE, retry_after_s=60)
    await queue.cancel("default", jobs[JobState.CANCELING])
    states = {state: (await queue.read("default", job_id)).state for state, job_id in jobs.items()}
    assert states == {state: state for state in JobState}
    return jobs


async def expire(upkeep: Upkeep, most: int = 100) -> list[str]:
    return (await upkeep.expire(pictures_s=PICTURES_S, record_s=RECORD_S, most=most)).job_ids


async def test_only_what_ended_expires_and_the_dead_do_not(queue: JobQueue, valkey: Redis, upkeep: Upkeep) -> None:
    jobs = await in_every_state(queue, valkey)
    assert await expire(upkeep) == []
    await pass_time(valkey, PICTURES_S - 1)
    assert await expire(upkeep) == []
    await pass_time(valkey, 2)
    ended = {JobState.COMPLETED, JobState.FAILED, JobState.CANCELED}
    assert set(await expire(upkeep)) == {jobs[state] for state in ended}
    assert await expire(upkeep) == []
    for state, job_id in jobs.items():
        record = await queue.read("default", job_id)
        assert record.state is state
        assert (record.expired_ms is not None) == (state in ended)


async def test_a_record_stays_for_its_time_after_its_pictures(queue: JobQueue, valkey: Redis, upkeep: Upkeep) -> None:
    await submit(queue, 1, 2)
    await queue.complete(await claim_one(queue), RESULT)
    await pass_time(valkey, PICTURES_S + 1)
    await expire(upkeep)
    await pass_time(valkey, RECORD_S - 1)
    assert await expire(upkeep) == []
    assert (await queue.read("default", numbered(1).id)).result == RESULT
    await pass_time(valkey, 2)
    assert await expire(upkeep) == []  # pictures that went long ago need not go again
    with pytest.raises(JobNotFoundError):
        await queue.read("default", numbered(1).id)
    assert [record.job for record in (await queue.page("default", limit=10)).records] == [numbered(2)]
    assert not [name for name in await keyspace(valkey) if numbered(1).id in name]
    assert "expired" not in await keyspace(valkey)


async def test_expiry_goes_on_where_it_stopped(queue: JobQueue, valkey: Redis, upkeep: Upkeep) -> None:
    jobs = ids(await submit(queue, *range(5)))
    for job_id in jobs:
        await queue.cancel("default", job_id)
    await pass_time(valkey, PICTURES_S + 1)
    gone = [await expire(upkeep, most=2) for _ in range(4)]
    assert [len(some) for some in gone] == [2, 2, 1, 0]
    assert sorted(job_id for some in gone for job_id in some) == jobs


async def test_expiry_tells_who_listens(queue: JobQueue, valkey: Redis, upkeep: Upkeep) -> None:
    await submit(queue, 1)
    await queue.cancel("default", numbered(1).id)
    await pass_time(valkey, PICTURES_S + 1)
    async with queue.changes() as changes:
        await expire(upkeep)
        assert await anext(changes) == numbered(1).id


async def test_who_holds_bytes(queue: JobQueue, valkey: Redis, upkeep: Upkeep) -> None:
    jobs = await in_every_state(queue, valkey)
    [*holders, unknown] = await upkeep.holders([*jobs.values(), "img_unknown"])
    assert unknown is None
    assert dict(zip(jobs, holders, strict=True)) == {
        JobState.QUEUED: Holder(Hold.OPEN, "token", expired=False),
        JobState.DELAYED: Holder(Hold.OPEN, "token", expired=False),
        JobState.IN_PROGRESS: Holder(Hold.OPEN, "token", expired=False),
        JobState.CANCELING: Holder(Hold.OPEN, "token", expired=False),
        JobState.COMPLETED: Holder(Hold.COMPLETED, "token", expired=False),
        JobState.FAILED: Holder(Hold.ENDED, "token", expired=False),
        JobState.DEAD: Holder(Hold.ENDED, "token", expired=False),
        JobState.CANCELED: Holder(Hold.ENDED, "token", expired=False),
    }
    await pass_time(valkey, PICTURES_S + 1)
    await expire(upkeep)
    [completed, queued] = await upkeep.holders([jobs[JobState.COMPLETED], jobs[JobState.QUEUED]])
    assert (completed, queued) == (Holder(Hold.COMPLETED, "token", expired=True), holders[0])


async def test_a_job_that_nobody_took_holds_nothing_yet(queue: JobQueue, upkeep: Upkeep) -> None:
    await submit(queue, 1)
    assert await upkeep.holders([numbered(1).id]) == [Holder(Hold.OPEN, "", expired=False)]
    assert await upkeep.holders([]) == []


async def give_up(queue: JobQueue, valkey: Redis, *numbers: int, **changes: object) -> list[str]:
    await queue.tick()
    jobs = ids(await submit(queue, *numbers, **changes))
    for job_id in jobs:
        await queue.claim("dies", f"token-{job_id}", [LANE], 1)
        await pass_time(valkey, 11)
        assert (await queue.tick()).dead == 1
    return jobs


async def test_the_dead_are_listed_the_latest_first(queue: JobQueue, valkey: Redis, upkeep: Upkeep) -> None:
    assert await upkeep.dead() == []
    ours = await give_up(queue, valkey, 1, tenant="ours")
    theirs = await give_up(queue, valkey, 2, 3, tenant="theirs")
    for job_id, age_ms in zip([*ours, *theirs], (3, 2, 1), strict=True):
        await valkey.zincrby(PREFIX + "dead", -1000 * age_ms, job_id)
    listed = [(theirs[1], "theirs"), (theirs[0], "theirs"), (ours[0], "ours")]
    assert await upkeep.dead() == listed


async def test_the_dead_live_again_alone(queue: JobQueue, valkey: Redis, upkeep: Upkeep) -> None:
    dead = await give_up(queue, valkey, 1, 2)
    [alive] = await submit(queue, 3)
    assert await upkeep.revive([]) == 0
    assert await upkeep.revive([*dead, alive.id, "img_unknown"]) == 2
    assert await upkeep.revive(dead) == 0
    assert await upkeep.dead() == []
    stats = await queue.stats()
    assert (stats.dead, stats.totals["dead"], stats.lanes[LANE].suspects, stats.lanes[LANE].queued) == (0, 0, 2, 3)
    record = await queue.read("default", dead[0])
    assert (record.state, record.attempts, record.error, record.finished_ms) == (JobState.QUEUED, 0, None, None)
    claim = await claim_one(queue, "second life")
    assert (claim.job.id, claim.alone) == (dead[0], True)
    await queue.complete(claim, RESULT)
    assert (await queue.read("default", dead[0])).state is JobState.COMPLETED


async def test_a_revived_job_counts_as_its_tenants_again(valkey: Redis, upkeep: Upkeep) -> None:
    queue = JobQueue(valkey, lease_s=10, max_crashes=1)
    dead = await give_up(queue, valkey, 1)
    assert await valkey.hgetall(PREFIX + "tenant:default") == {"open": "0", "work_ms": "0"}
    await upkeep.revive(dead)
    assert await valkey.hgetall(PREFIX + "tenant:default") == {"open": "1", "work_ms": "1000"}


async def test_a_revived_job_dies_again_at_its_next_crash_too_many(
    valkey: Redis, upkeep: Upkeep, queue: JobQueue
) -> None:
    dead = await give_up(queue, valkey, 1)
    await upkeep.revive(dead)
    tougher = JobQueue(valkey, lease_s=10, max_crashes=3)
    for crash, died in enumerate((0, 1)):
        await tougher.claim("dies", f"again-{crash}", [LANE], 1)
        await pass_time(valkey, 11)
        assert (await tougher.tick()).dead == died


async def test_a_purge_forgets_what_is_over_and_ones_own(queue: JobQueue, valkey: Redis, upkeep: Upkeep) -> None:
    jobs = await in_every_state(queue, valkey)
    [theirs] = await submit(queue, 50, tenant="theirs")
    await queue.cancel("theirs", theirs.id)
    assert await upkeep.purge("default", []) == []
    answers = await upkeep.purge("default", [*jobs.values(), theirs.id, "img_unknown"])
    over = {JobState.COMPLETED, JobState.FAILED, JobState.DEAD, JobState.CANCELED}
    expected = [Purged.OK if state in over else Purged.OPEN for state in jobs]
    assert answers == [*expected, Purged.MISSING, Purged.MISSING]
    keys = await keyspace(valkey)
    gone = [jobs[state] for state in over]
    assert not [name for name in keys if any(job_id in name for job_id in gone)]
    # A claim's own list is a lease old at most.
    lists = [value for name, value in keys.items() if not name.startswith("claim:") and not isinstance(value, str)]
    listed = {member for value in lists for member in value}
    assert listed.isdisjoint(gone)
    assert theirs.id in listed
    assert len((await queue.page("default", limit=20)).records) == len(jobs) - len(over)


async def test_a_purge_of_what_expired_leaves_nothing(queue: JobQueue, valkey: Redis, upkeep: Upkeep) -> None:
    await submit(queue, 1)
    await queue.cancel("default", numbered(1).id)
    await pass_time(valkey, PICTURES_S + 1)
    await expire(upkeep)
    assert await upkeep.purge("default", [numbered(1).id]) == [Purged.OK]
    assert not await valkey.exists(PREFIX + "expired", PREFIX + "ended", PREFIX + "jobs:default")


@pytest.mark.parametrize("weight", [0, -1, 0.0009, 1001, float("nan"), float("inf")])
async def test_a_weight_is_within_reason(upkeep: Upkeep, weight: float) -> None:
    with pytest.raises(ValueError, match=r"between 0\.001 and 1000"):
        await upkeep.weigh("ours", weight)


async def test_a_weight_is_kept(upkeep: Upkeep, valkey: Redis) -> None:
    await upkeep.weigh("ours", 2)
    await upkeep.weigh("ours", 0.001)
    await upkeep.weigh("theirs", 1000)
    assert await valkey.hgetall(PREFIX + "weights") == {"ours": "0.001", "theirs": "1000.0"}
