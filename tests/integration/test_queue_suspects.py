"""A job whose worker died runs alone: what it does to its worker, it does to itself only."""

import pytest
from redis.asyncio import Redis

from app.jobs.queue import Claim, JobQueue, Verdict
from app.jobs.schema import ErrorCode, JobState, Priority
from app.jobs.upkeep import Upkeep
from tests.integration.queue_lab import (
    FINAL,
    LANE,
    OTHER_LANE,
    PROGRESS,
    RESULT,
    RETRYABLE,
    ids,
    numbered,
    pass_time,
    submit,
)

LEASE_S = 10


@pytest.fixture
async def queue(valkey: Redis) -> JobQueue:
    queue = JobQueue(valkey, lease_s=LEASE_S, max_crashes=3, max_attempts=10)
    await queue.tick()  # an outage before it would be nobody's fault
    return queue


async def crash(queue: JobQueue, valkey: Redis, *numbers: int, times: int = 1, **changes: object) -> list[str]:
    """Jobs whose worker died with them `times` times."""
    jobs = await submit(queue, *numbers, **changes)
    for time in range(times):
        claimed = 0
        while claimed < len(jobs):
            claims = await queue.claim("dies", f"dies-{numbers}-{time}-{claimed}", [LANE, OTHER_LANE], len(jobs))
            claimed += len(claims)
        await pass_time(valkey, LEASE_S + 1)
        await queue.tick()
    return ids(jobs)


async def take(queue: JobQueue, token: str, *, worker: str = "worker-1", idle: bool = True) -> list[Claim]:
    return await queue.claim(worker, token, [LANE, OTHER_LANE], 8, idle=idle)


async def test_it_goes_first_and_alone(queue: JobQueue, valkey: Redis) -> None:
    crashed = await crash(queue, valkey, 5, model=OTHER_LANE, priority=Priority.LOW)
    await submit(queue, 0, 1, 2, priority=Priority.HIGH)
    [claim] = await take(queue, "token-1")
    assert (claim.job.id, claim.alone) == (crashed[0], True)
    others = await take(queue, "token-2", worker="worker-2")
    assert [(other.job.id, other.alone) for other in others] == [(numbered(number).id, False) for number in range(3)]


async def test_several_go_one_by_one_the_oldest_first(queue: JobQueue, valkey: Redis) -> None:
    crashed = await crash(queue, valkey, 9, 5, 7)
    taken = [await take(queue, f"token-{worker}", worker=f"worker-{worker}") for worker in range(3)]
    assert [ids(claims) for claims in taken] == [[job_id] for job_id in crashed]


async def test_a_busy_worker_gets_nothing_more_while_the_others_go_on(queue: JobQueue, valkey: Redis) -> None:
    [suspect] = await crash(queue, valkey, 0)
    await submit(queue, 1, 2, 3, 4)
    assert await take(queue, "busy-1", idle=False) == []
    assert await take(queue, "busy-2", idle=False) == []
    [other] = await queue.claim("worker-2", "others-1", [LANE], 1, idle=False)
    assert ids([other, *await take(queue, "others-2", worker="worker-3", idle=False)]) == [
        numbered(n).id for n in (1, 2, 3, 4)
    ]
    assert ids(await take(queue, "idle")) == [suspect]


async def test_each_of_two_busy_workers_is_kept_for_one_of_two(queue: JobQueue, valkey: Redis) -> None:
    first, second = await crash(queue, valkey, 0, 1)
    await submit(queue, 2)
    assert await take(queue, "busy-1", worker="worker-1", idle=False) == []
    assert await take(queue, "busy-2", worker="worker-2", idle=False) == []
    assert ids(await take(queue, "free", worker="worker-3", idle=False)) == [numbered(2).id]
    assert ids(await take(queue, "idle-2", worker="worker-2")) == [first], "whoever is idle takes the oldest"
    assert ids(await take(queue, "idle-1", worker="worker-1")) == [second]


async def test_it_is_kept_for_a_worker_for_one_lease_only(queue: JobQueue, valkey: Redis) -> None:
    await crash(queue, valkey, 0)
    await submit(queue, 1, 2)
    assert await take(queue, "busy", idle=False) == []
    await pass_time(valkey, LEASE_S - 1)
    assert ids(await queue.claim("worker-2", "early", [LANE], 1, idle=False)) == [numbered(1).id]
    await pass_time(valkey, 2)
    assert await take(queue, "late", worker="worker-2", idle=False) == [], "now it is kept for this one"


async def test_an_idle_worker_takes_it_though_it_is_kept_for_a_busy_one(queue: JobQueue, valkey: Redis) -> None:
    [suspect] = await crash(queue, valkey, 0)
    assert await take(queue, "busy", idle=False) == []
    assert ids(await take(queue, "idle", worker="worker-2")) == [suspect]


async def test_after_a_suspect_the_others_have_as_long(queue: JobQueue, valkey: Redis) -> None:
    _, second = await crash(queue, valkey, 0, 1)
    await submit(queue, 2, 3)
    [claim] = await take(queue, "token-1")
    await pass_time(valkey, 30)
    await queue.renew([claim])
    assert await queue.complete(claim, RESULT) is Verdict.OK
    assert ids(await queue.claim("worker-1", "token-2", [LANE], 1)) == [numbered(2).id]
    await pass_time(valkey, 20)
    assert ids(await queue.claim("worker-1", "token-3", [LANE], 1, idle=False)) == [numbered(3).id]
    assert ids(await queue.claim("worker-1", "token-4", [LANE], 1)) == [second], "nobody else waits"


async def test_a_busy_worker_that_asks_again_keeps_it(queue: JobQueue, valkey: Redis) -> None:
    [suspect] = await crash(queue, valkey, 0)
    for turn in range(4):
        assert await take(queue, f"busy-{turn}", idle=False) == []
        await pass_time(valkey, LEASE_S / 2)
        assert await take(queue, f"other-{turn}", worker="worker-2", idle=False) == []
    assert ids(await take(queue, "idle")) == [suspect]


async def test_a_worker_of_other_lanes_is_not_held_back(queue: JobQueue, valkey: Redis) -> None:
    await crash(queue, valkey, 0)
    await submit(queue, 1, model=OTHER_LANE)
    assert ids(await queue.claim("worker-1", "token", [OTHER_LANE], 8, idle=False)) == [numbered(1).id]


async def test_once_it_is_done_the_others_run_together_again(queue: JobQueue, valkey: Redis) -> None:
    await crash(queue, valkey, 0)
    await submit(queue, 1, 2, 3)
    [claim] = await take(queue, "token-1")
    assert await queue.complete(claim, RESULT) is Verdict.OK
    assert (await queue.stats()).lanes[LANE].suspects == 0
    assert len(await take(queue, "token-2")) == 3


@pytest.mark.parametrize("how", ["released", "failed"])
async def test_it_stays_a_suspect_until_it_is_over(queue: JobQueue, valkey: Redis, how: str) -> None:
    [suspect] = await crash(queue, valkey, 0)
    [claim] = await take(queue, "token-1")
    if how == "released":
        await queue.release([claim])
    else:
        await queue.fail(claim, RETRYABLE, retry_after_s=1)
        await pass_time(valkey, 2)
        await queue.tick()
    assert (await queue.stats()).lanes[LANE].suspects == 1
    [again] = await take(queue, "token-2")
    assert (again.job.id, again.alone) == (suspect, True)


async def test_canceling_it_frees_who_was_held_back(queue: JobQueue, valkey: Redis) -> None:
    [suspect] = await crash(queue, valkey, 0)
    await submit(queue, 1)
    assert await take(queue, "busy-1", idle=False) == []
    await queue.cancel("default", suspect)
    assert ids(await take(queue, "busy-2", idle=False)) == [numbered(1).id]


async def test_it_tells_the_steps_that_went_with_its_worker(queue: JobQueue, valkey: Redis) -> None:
    await submit(queue, 0)
    [claim] = await take(queue, "token-1")
    assert claim.lost_steps == 0
    await queue.progress([(claim, PROGRESS)])
    await pass_time(valkey, LEASE_S + 1)
    await queue.tick()
    [again] = await take(queue, "token-2")
    assert again.lost_steps == PROGRESS.step


async def test_at_the_limit_it_is_dead(queue: JobQueue, valkey: Redis) -> None:
    [suspect] = await crash(queue, valkey, 0, times=2)
    record = await queue.read("default", suspect)
    assert (record.state, record.crashes) == (JobState.QUEUED, 2)
    await take(queue, "token")
    await pass_time(valkey, LEASE_S + 1)
    assert (await queue.tick()).dead == 1
    record = await queue.read("default", suspect)
    assert (record.state, record.crashes) == (JobState.DEAD, 3)
    assert record.error is not None
    assert record.error.code is ErrorCode.WORKER_LOST
    assert (await queue.stats()).dead == 1


async def test_an_outage_makes_no_suspects(queue: JobQueue, valkey: Redis) -> None:
    await submit(queue, *range(8))
    await take(queue, "token-1")
    await pass_time(valkey, 60, ticked=False)
    assert (await queue.tick()).blameless == 8
    claims = await take(queue, "token-2")
    assert [claim.alone for claim in claims] == [False] * 8


async def test_a_job_that_never_lets_a_queue_live_is_found_out_all_the_same(queue: JobQueue, valkey: Redis) -> None:
    """It brings the house down with every attempt, so that nobody ticks; blameless attempts are counted too."""
    await submit(queue, 0)
    for attempt in range(20):
        if not await take(queue, f"token-{attempt}"):
            break
        await pass_time(valkey, 60, ticked=False)
        await queue.tick()
    assert (await queue.read("default", numbered(0).id)).state is JobState.DEAD
    assert attempt <= 13


async def test_of_a_batch_with_one_poisoned_job_the_others_complete(queue: JobQueue, valkey: Redis) -> None:
    poisoned = numbered(3).id
    await submit(queue, *range(8))
    claims = await take(queue, "batch")
    assert len(claims) == 8
    deaths = 0
    for turn in range(30):
        if any(claim.job.id == poisoned for claim in claims):
            deaths += 1
            await pass_time(valkey, LEASE_S + 1)
            await queue.tick()
        else:
            for claim in claims:
                assert await queue.complete(claim, RESULT) is Verdict.OK
        claims = await take(queue, f"token-{turn}", worker=f"worker-{turn}")
    states = {number: (await queue.read("default", numbered(number).id)).state for number in range(8)}
    assert states == dict.fromkeys(range(8), JobState.COMPLETED) | {3: JobState.DEAD}
    assert deaths == 3
    assert [job_id for job_id, _ in await Upkeep(valkey).dead()] == [poisoned]


async def test_a_suspect_that_fails_for_good_is_over(queue: JobQueue, valkey: Redis) -> None:
    await crash(queue, valkey, 0)
    [claim] = await take(queue, "token-1")
    await queue.fail(claim, FINAL)
    assert await take(queue, "token-2") == []
    assert (await queue.stats()).dead == 0


async def test_a_worker_that_was_only_out_of_reach_clears_its_jobs(queue: JobQueue, valkey: Redis) -> None:
    [job] = await submit(queue, 1)
    [claim] = await take(queue, "token-1")
    await queue.tick()
    await pass_time(valkey, LEASE_S + 1)
    await queue.tick()
    assert (await queue.read("default", job.id)).crashes == 1
    for _ in range(2):
        assert await queue.release([claim]) == [Verdict.OK]
    record = await queue.read("default", job.id)
    assert (record.crashes, record.attempts) == (0, 0)
    [again] = await take(queue, "token-2")
    assert (again.job.id, again.alone) == (job.id, False)
    assert await queue.release([claim]) == [Verdict.LOST]
