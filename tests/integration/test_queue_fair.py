"""Who is served next: tenants by what they got for their weight, priorities by their shares, a flow in its order."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest
from redis.asyncio import Redis

from app.jobs.keys import PREFIX
from app.jobs.queue import Claim, JobQueue
from app.jobs.schema import ImageJob, Priority
from app.jobs.upkeep import Upkeep
from tests.integration.queue_lab import LANE, OTHER_LANE, RESULT, ids, numbered, pass_time

CALLS = iter(range(1_000_000))


@pytest.fixture
def upkeep(valkey: Redis) -> Upkeep:
    return Upkeep(valkey)


async def serve(queue: JobQueue, jobs: int, lanes: Sequence[str] = (LANE,)) -> list[ImageJob]:
    """Claim one at a time, as a worker that draws one after another."""
    served: list[Claim] = []
    for _ in range(jobs):
        served += await queue.claim("worker-1", f"call-{next(CALLS)}", lanes, 1)
    return [claim.job for claim in served]


async def line_up(queue: JobQueue, first: int, jobs: int, cost_s: float = 1.0, **changes: object) -> list[ImageJob]:
    made = [numbered(number, **changes) for number in range(first, first + jobs)]
    for job in made:
        await queue.submit(job, cost_s=cost_s)
    return made


def turns(served: Sequence[ImageJob], tenant: str) -> list[int]:
    """How many jobs of others went before each of this tenant's, since its last."""
    waits, others = [], 0
    for job in served:
        if job.tenant == tenant:
            waits.append(others)
        others = 0 if job.tenant == tenant else others + 1
    return waits


async def test_a_flood_lets_one_job_go_between_two_of_a_trickle(queue: JobQueue) -> None:
    await line_up(queue, 0, 60, tenant="flood")
    await serve(queue, 20)
    await line_up(queue, 100, 10, tenant="trickle")
    served = await serve(queue, 30)
    assert len(waits := turns(served, "trickle")) == 10
    assert max(waits) <= 1
    assert ids([job for job in served if job.tenant == "flood"]) == [numbered(n).id for n in range(20, 40)]


async def test_a_trickle_that_waits_for_its_result_is_next_or_second(queue: JobQueue) -> None:
    await line_up(queue, 0, 60, tenant="flood")
    await serve(queue, 5)
    for number in range(100, 110):
        await line_up(queue, number, 1, tenant="trickle")
        assert "trickle" in [job.tenant for job in await serve(queue, 2)]


async def test_a_trickle_is_as_soon_in_a_flood_of_many_tenants_as_each_of_them(queue: JobQueue) -> None:
    for tenant in range(40):
        await line_up(queue, 10 * tenant, 5, tenant=f"tenant-{tenant}")
    first, *rest = [await serve(queue, 40) for _ in range(5)]
    assert ids(first) == [numbered(10 * tenant).id for tenant in range(40)]
    assert all(len({job.tenant for job in round_}) == 40 for round_ in rest)


@pytest.mark.parametrize(("weight", "share"), [(3, 30), (1, 20), (0.25, 8)])
async def test_a_tenant_gets_its_weight(queue: JobQueue, upkeep: Upkeep, weight: float, share: int) -> None:
    await upkeep.weigh("ours", weight)
    await line_up(queue, 0, 60, tenant="ours")
    await line_up(queue, 100, 60, tenant="theirs")
    assert abs(Counter(job.tenant for job in await serve(queue, 40))["ours"] - share) <= 1


async def test_a_weight_counts_from_when_it_is_given(queue: JobQueue, upkeep: Upkeep) -> None:
    await line_up(queue, 0, 60, tenant="ours")
    await line_up(queue, 100, 60, tenant="theirs")
    await serve(queue, 10)
    await upkeep.weigh("theirs", 4)
    assert abs(Counter(job.tenant for job in await serve(queue, 20))["theirs"] - 16) <= 1


async def test_dear_jobs_count_for_more(queue: JobQueue) -> None:
    await line_up(queue, 0, 40, cost_s=4, tenant="dear")
    await line_up(queue, 100, 40, cost_s=1, tenant="cheap")
    assert abs(Counter(job.tenant for job in await serve(queue, 40))["cheap"] - 32) <= 1


async def test_priorities_share_64_to_8_to_1(queue: JobQueue) -> None:
    for first, priority in zip((0, 200, 400), Priority, strict=True):
        await line_up(queue, first, 150, priority=priority)
    got = Counter(job.priority for job in await serve(queue, 146))
    assert abs(got[Priority.HIGH] - 128) <= 2
    assert abs(got[Priority.NORMAL] - 16) <= 1
    assert abs(got[Priority.LOW] - 2) <= 1


async def test_equals_go_by_priority_and_then_by_age(queue: JobQueue) -> None:
    for number, priority in enumerate((Priority.LOW, Priority.NORMAL, Priority.HIGH)):
        lane = (LANE, OTHER_LANE)[number % 2]
        await line_up(queue, number, 1, priority=priority, tenant="z", model=lane)
        await line_up(queue, 10 + number, 1, priority=priority, tenant="a", model=lane)
    assert ids(await serve(queue, 6, [LANE, OTHER_LANE])) == [numbered(number).id for number in (2, 12, 1, 11, 0, 10)]


async def test_a_stream_of_high_priority_starves_nobody(queue: JobQueue) -> None:
    await line_up(queue, 0, 3, priority=Priority.LOW)
    await line_up(queue, 100, 5, priority=Priority.HIGH)
    low = []
    for number in range(200, 400):
        await line_up(queue, number, 1, priority=Priority.HIGH)
        low += [number for job in await serve(queue, 1) if job.priority is Priority.LOW]
    assert len(low) == 3
    assert [later - earlier for earlier, later in pairwise(low)] == [65, 65]


async def test_a_flow_is_first_come_first_served_across_its_lanes(queue: JobQueue) -> None:
    lanes = (LANE, OTHER_LANE, OTHER_LANE, LANE, "third", OTHER_LANE, LANE, LANE)
    for number, lane in enumerate(lanes):
        await line_up(queue, number, 1, cost_s=1 + number % 3, model=lane)
        await line_up(queue, 100 + number, 1, model=lane, tenant="other")
    served = await serve(queue, 2 * len(lanes), ("third", OTHER_LANE, LANE))
    for tenant, first in (("default", 0), ("other", 100)):
        own = [job for job in served if job.tenant == tenant]
        assert ids(own) == [numbered(first + number).id for number in range(len(lanes))]


async def test_what_a_tenant_got_in_one_lane_counts_in_the_others(queue: JobQueue) -> None:
    await line_up(queue, 0, 20, tenant="ours", model=OTHER_LANE)
    await line_up(queue, 100, 20, tenant="theirs")
    await serve(queue, 10, (LANE, OTHER_LANE))
    await line_up(queue, 200, 20, tenant="ours")
    got = Counter(job.tenant for job in await serve(queue, 20, (LANE, OTHER_LANE)))
    assert abs(got["ours"] - 10) <= 1


@pytest.mark.parametrize("priority", Priority)
async def test_a_lane_that_goes_faster_sets_newcomers_in_another_back_by_nothing(
    queue: JobQueue, priority: Priority
) -> None:
    await line_up(queue, 0, 40, tenant="batch", model=OTHER_LANE, priority=priority)
    await line_up(queue, 100, 40, tenant="flood")
    await serve(queue, 40, [OTHER_LANE])  # by other workers than those of the lane below
    await serve(queue, 5)
    await line_up(queue, 200, 1, tenant="trickle")
    assert "trickle" in [job.tenant for job in await serve(queue, 2)]


async def test_a_job_that_no_worker_serves_earns_its_tenant_nothing_elsewhere(queue: JobQueue) -> None:
    await line_up(queue, 0, 1, tenant="ours", model="nobody-serves-it")
    await line_up(queue, 100, 40, tenant="theirs")
    await serve(queue, 20)
    await line_up(queue, 200, 20, tenant="ours")
    assert abs(Counter(job.tenant for job in await serve(queue, 20))["ours"] - 10) <= 1


async def test_lanes_that_went_apart_share_one_worker_evenly(queue: JobQueue) -> None:
    await line_up(queue, 0, 60, tenant="ours", model=OTHER_LANE)
    await line_up(queue, 100, 60, tenant="theirs")
    await serve(queue, 30, [OTHER_LANE])
    got = Counter(job.tenant for job in await serve(queue, 20, [LANE, OTHER_LANE]))
    assert got == {"ours": 10, "theirs": 10}


async def test_a_newcomer_starts_at_the_clock(queue: JobQueue) -> None:
    """Who was away has saved nothing up."""
    await line_up(queue, 0, 1, tenant="ours")
    await line_up(queue, 100, 60, tenant="theirs")
    await serve(queue, 31)
    await line_up(queue, 200, 20, tenant="ours")
    assert max(turns(await serve(queue, 20), "theirs")) <= 1


async def test_who_submits_one_at_a_time_is_charged_for_it(queue: JobQueue) -> None:
    await line_up(queue, 0, 40, cost_s=1, tenant="theirs")
    got: Counter[str] = Counter()
    await line_up(queue, 100, 1, cost_s=4, tenant="ours")
    for number in range(101, 131):
        [job] = await serve(queue, 1)
        got[job.tenant] += 1
        if job.tenant == "ours":
            await line_up(queue, number, 1, cost_s=4, tenant="ours")
    assert abs(got["ours"] - 6) <= 1


async def test_a_debt_is_forgotten_when_the_clock_has_passed_it(queue: JobQueue, valkey: Redis) -> None:
    await line_up(queue, 0, 1, cost_s=3, tenant="ours")
    await line_up(queue, 100, 9, tenant="theirs")
    await serve(queue, 1)
    assert await valkey.zcard(PREFIX + f"debts:{LANE}") == 1
    await serve(queue, 5)
    assert await valkey.zcard(PREFIX + f"debts:{LANE}") == 0


async def test_who_comes_back_takes_the_debt_along(queue: JobQueue, valkey: Redis) -> None:
    await line_up(queue, 0, 1, cost_s=3, tenant="ours")
    await line_up(queue, 100, 3, tenant="theirs")
    await serve(queue, 1)
    debt = await valkey.zscore(PREFIX + f"debts:{LANE}", "2:ours")
    assert debt
    await line_up(queue, 1, 1, tenant="ours")
    assert await valkey.zcard(PREFIX + f"debts:{LANE}") == 0
    assert await valkey.zscore(PREFIX + f"ready:{LANE}", f"2:{5:016}:ours") == debt


async def test_cancelling_all_but_the_last_lets_it_go_at_once(queue: JobQueue) -> None:
    await line_up(queue, 2000, 10, tenant="theirs")
    jobs = await line_up(queue, 0, 1000, cost_s=10, tenant="ours")
    for job in jobs[:-1]:
        await queue.cancel("ours", job.id)
    assert jobs[-1] in await serve(queue, 2)


async def test_cancelling_the_last_keeps_the_debt_of_those_before(queue: JobQueue) -> None:
    await line_up(queue, 0, 20, tenant="theirs")
    await line_up(queue, 100, 2, cost_s=5, tenant="ours")
    await serve(queue, 2)
    await queue.cancel("ours", numbered(101).id)
    await line_up(queue, 200, 5, cost_s=5, tenant="ours")
    assert [job.tenant for job in await serve(queue, 4)] == ["theirs"] * 4


async def test_what_was_taken_before_goes_first_and_is_not_charged_again(queue: JobQueue) -> None:
    await line_up(queue, 0, 4, tenant="ours")
    await line_up(queue, 100, 4, tenant="theirs", model=OTHER_LANE)
    claims = await queue.claim("worker-1", "token", [LANE, OTHER_LANE], 4)
    assert ids(claims) == [numbered(number).id for number in (0, 100, 1, 101)]
    await queue.release(list(reversed(claims)))
    served = await serve(queue, 8, [LANE, OTHER_LANE])
    assert ids(served) == [numbered(number).id for number in (0, 1, 100, 101, 2, 102, 3, 103)]


async def test_what_a_lost_worker_held_without_blame_goes_first_too(queue: JobQueue, valkey: Redis) -> None:
    await queue.tick()
    await line_up(queue, 0, 4)
    await queue.claim("worker-1", "token", [LANE], 2)
    await line_up(queue, 100, 1, priority=Priority.HIGH)
    await pass_time(valkey, 5, ticked=False)
    assert (await queue.tick()).blameless == 2
    assert ids(await serve(queue, 3)) == [numbered(number).id for number in (0, 1, 100)]


async def test_a_batch_is_taken_in_the_order_of_single_claims(queue: JobQueue, valkey: Redis) -> None:
    async def fill() -> None:
        await valkey.flushall()
        await line_up(queue, 0, 8, cost_s=2, tenant="ours")
        await line_up(queue, 100, 8, tenant="theirs", priority=Priority.HIGH)
        await line_up(queue, 200, 8, tenant="theirs", model=OTHER_LANE)

    await fill()
    one_by_one = ids(await serve(queue, 24, [LANE, OTHER_LANE]))
    await fill()
    assert ids(await queue.claim("worker-1", "token", [LANE, OTHER_LANE], 24)) == one_by_one


async def test_two_equal_tenants_take_turns_while_their_jobs_complete(queue: JobQueue) -> None:
    await line_up(queue, 0, 10, tenant="ours")
    await line_up(queue, 100, 10, tenant="theirs")
    for turn in range(10):
        for claim in await queue.claim("worker-1", f"token-{turn}", [LANE], 2):
            await queue.complete(claim, RESULT)
            assert claim.job in (numbered(turn, tenant="ours"), numbered(100 + turn, tenant="theirs"))
