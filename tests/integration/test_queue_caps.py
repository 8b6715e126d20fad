"""A lane takes so many jobs and a tenant has so many open; whoever is refused is told when to come back, truly."""

import math
from dataclasses import dataclass, field

import pytest
from redis.asyncio import Redis

from app.jobs.errors import JobNotFoundError, QueueFullError, TenantFullError
from app.jobs.keys import PREFIX
from app.jobs.queue import Idempotency, JobQueue, Verdict
from app.jobs.schema import JobState
from app.jobs.upkeep import Upkeep
from tests.integration.queue_lab import (
    LANE,
    OTHER_LANE,
    RESULT,
    RETRYABLE,
    claim_one,
    keyspace,
    numbered,
    pass_time,
    submit,
    without_times,
)


async def refusal(queue: JobQueue, number: int = 999, **changes: object) -> QueueFullError | TenantFullError:
    with pytest.raises((QueueFullError, TenantFullError)) as refused:
        await submit(queue, number, **changes)
    assert isinstance(refused.value, QueueFullError | TenantFullError)
    return refused.value


async def test_a_refusal_leaves_nothing_but_its_promise(valkey: Redis) -> None:
    queue = JobQueue(valkey, max_queued=2)
    await submit(queue, 1, 2)
    before = without_times(await keyspace(valkey))
    assert isinstance(await refusal(queue), QueueFullError)
    assert without_times(await keyspace(valkey)) == before
    with pytest.raises(JobNotFoundError):
        await queue.read("default", numbered(999).id)


async def test_a_lane_is_full_of_what_waits_only(valkey: Redis) -> None:
    queue = JobQueue(valkey, max_queued=2)
    await submit(queue, 1, 2)
    await submit(queue, 3, model=OTHER_LANE)
    claim = await claim_one(queue)
    await submit(queue, 4)
    await refusal(queue)
    await queue.release([claim])  # what was accepted once is never refused
    assert (await queue.stats()).lanes[LANE].queued == 3
    await refusal(queue)
    await queue.cancel("default", numbered(2).id)
    await refusal(queue)
    await queue.cancel("default", numbered(4).id)
    await submit(queue, 5)


async def test_a_tenant_is_full_of_all_that_is_not_over(valkey: Redis) -> None:
    queue = JobQueue(valkey, max_open=4)
    await submit(queue, 1, 2, 3)
    await submit(queue, 4, model=OTHER_LANE)
    claim = await claim_one(queue, "completes")
    await queue.fail(await claim_one(queue, "fails"), RETRYABLE)
    await queue.cancel("default", (await claim_one(queue, "is canceled")).job.id)
    for lane in (LANE, OTHER_LANE, "third"):
        assert isinstance(error := await refusal(queue, model=lane), TenantFullError)
        assert "4 of your jobs are not over yet" in str(error)
    await submit(queue, 100, tenant="somebody-else")
    assert await queue.complete(claim, RESULT) is Verdict.OK
    await submit(queue, 5)
    await refusal(queue)


@pytest.mark.parametrize("end", [JobState.FAILED, JobState.DEAD, JobState.CANCELED, JobState.COMPLETED])
async def test_each_end_frees_a_tenants_place_once(valkey: Redis, end: JobState) -> None:
    queue = JobQueue(valkey, max_open=2, max_crashes=1, max_attempts=1)
    await queue.tick()
    await submit(queue, 1, 2)
    claim = await claim_one(queue)
    for _ in range(2):
        if end is JobState.FAILED:
            await queue.fail(claim, RETRYABLE)
        elif end is JobState.COMPLETED:
            await queue.complete(claim, RESULT)
        elif end is JobState.CANCELED:
            await queue.cancel("default", claim.job.id)
            await queue.renew([claim])
        else:
            await pass_time(valkey, 16)
            await queue.tick()
    assert (await queue.read("default", claim.job.id)).state is end
    await submit(queue, 3)
    await refusal(queue)


async def test_those_refused_at_once_are_told_times_a_pace_apart(valkey: Redis) -> None:
    queue = JobQueue(valkey, max_queued=40)
    await submit(queue, *range(40))
    for turn in range(20):
        await pass_time(valkey, 2)
        await claim_one(queue, f"token-{turn}")
        await submit(queue, 100 + turn)
    told = [(await refusal(queue)).retry_after_s for _ in range(20)]
    for place, retry_after_s in enumerate(told, 1):
        assert 1.8 * place <= retry_after_s <= 2.2 * place


async def test_before_any_claim_times_are_told_by_costs(valkey: Redis) -> None:
    queue = JobQueue(valkey, max_queued=2)
    for number in (1, 2):
        await queue.submit(numbered(number), cost_s=7)
    assert 6.9 <= (await refusal(queue)).retry_after_s <= 7
    assert 13.5 <= (await refusal(queue)).retry_after_s <= 14


async def test_nobody_is_sent_away_for_more_than_an_hour(valkey: Redis) -> None:
    queue = JobQueue(valkey, max_queued=1)
    await queue.submit(numbered(1), cost_s=1e6)
    assert (await refusal(queue)).retry_after_s == 3600


@pytest.mark.parametrize("limit", ["max_queued", "max_open"])
async def test_promises_to_those_who_never_came_back_are_forgotten_once_there_is_room(
    valkey: Redis, limit: str
) -> None:
    """A client that asks all the time uses promises up: the others must not pay for it once they find places."""
    queue = JobQueue(valkey, max_queued=10) if limit == "max_queued" else JobQueue(valkey, max_open=10)
    await submit(queue, *range(10))
    for _ in range(200):
        told = (await refusal(queue)).retry_after_s
    assert told > 150
    for number in range(5):
        await queue.cancel("default", numbered(number).id)
    await submit(queue, *range(20, 25))
    assert (await refusal(queue)).retry_after_s < 5


@dataclass(slots=True)
class Visitor:
    """Somebody who wants one job in, and comes back when told to, not before. `needed_s`: when it was taken."""

    number: int
    tenant: str
    comes_s: float = 0.0
    told_s: list[float] = field(default_factory=list)
    needed_s: float | None = None

    async def knock(self, queue: JobQueue, now_s: float) -> None:
        try:
            await submit(queue, self.number, tenant=self.tenant)
        except (QueueFullError, TenantFullError) as error:
            # Retry-After is in whole seconds.
            self.told_s.append(math.ceil(error.retry_after_s))
            self.comes_s = now_s + self.told_s[-1]
        else:
            self.needed_s = now_s


async def play(queue: JobQueue, valkey: Redis, visitors: list[Visitor], pace_s: float, limit_s: int) -> None:
    """Let time go by, a worker that takes and finishes a job each `pace_s`, and the visitors."""
    now_s = 0.0
    while any(visitor.needed_s is None for visitor in visitors) and now_s < limit_s:
        for visitor in visitors:
            if visitor.needed_s is None and visitor.comes_s <= now_s:
                await visitor.knock(queue, now_s)
        await pass_time(valkey, 1)
        now_s += 1
        if now_s % pace_s == 0:
            await finish_one(queue, valkey, f"turn-{now_s}")


async def finish_one(queue: JobQueue, valkey: Redis, token: str) -> None:
    for claim in await queue.claim("worker-1", token, [LANE], 1):
        await queue.complete(claim, RESULT)
        await Upkeep(valkey).purge(claim.job.tenant, [claim.job.id])


@pytest.mark.parametrize(("pace_s", "cost_s"), [(1, 1.0), (2, 20.0)])
async def test_what_a_crowd_is_told_comes_true(valkey: Redis, pace_s: int, cost_s: float) -> None:
    queue = JobQueue(valkey, max_queued=10, lease_s=1000)
    for number in range(10):
        await queue.submit(numbered(number), cost_s=cost_s)
    for turn in range(12):
        await pass_time(valkey, pace_s)
        await finish_one(queue, valkey, f"warms up {turn}")
        await submit(queue, 100 + turn)
    crowd = [Visitor(200 + number, f"tenant-{number % 7}") for number in range(25)]
    await play(queue, valkey, crowd, pace_s, limit_s=200 * pace_s)
    refused = [visitor for visitor in crowd if visitor.told_s]
    assert len(refused) == 25
    true = [visitor for visitor in refused if visitor.needed_s and visitor.needed_s <= 2 * visitor.told_s[0]]
    assert len(true) >= 0.95 * len(refused), [(visitor.told_s, visitor.needed_s) for visitor in refused]
    last_s = max(visitor.needed_s or math.inf for visitor in crowd)
    assert last_s <= 1.5 * pace_s * len(crowd)  # places did not stay empty meanwhile
    assert sum(len(visitor.told_s) for visitor in crowd) <= 1.5 * len(crowd)


async def test_what_a_full_tenant_is_told_comes_true_beside_others(valkey: Redis) -> None:
    queue = JobQueue(valkey, max_open=5, lease_s=1000)
    for tenant in range(3):
        await submit(queue, *range(10 * tenant, 10 * tenant + 5), tenant=f"tenant-{tenant}")
    for turn in range(12):
        await pass_time(valkey, 1)
        await finish_one(queue, valkey, f"warms up {turn}")
        await submit(queue, 100 + turn, tenant=f"tenant-{turn % 3}")
    crowd = [Visitor(200 + number, f"tenant-{number % 3}") for number in range(21)]
    await play(queue, valkey, crowd, 1, limit_s=200)
    true = [visitor for visitor in crowd if visitor.needed_s and visitor.needed_s <= 2 * visitor.told_s[0]]
    assert len(true) >= 0.9 * len(crowd), [(visitor.told_s, visitor.needed_s) for visitor in crowd]


async def test_a_promise_is_a_tenants_own(valkey: Redis) -> None:
    queue = JobQueue(valkey, max_open=1)
    await submit(queue, 1, tenant="ours")
    await submit(queue, 2, tenant="theirs")
    for _ in range(10):
        await refusal(queue, tenant="ours")
    ours = (await refusal(queue, tenant="ours")).retry_after_s
    assert ours > 5 * (await refusal(queue, tenant="theirs")).retry_after_s
    assert await valkey.hexists(PREFIX + f"lane:{LANE}", "promised_ms") == 0


async def knock(queue: JobQueue, number: int, key: str) -> float | None:
    """Submit under a key of one's own; give what is told to who is refused."""
    try:
        await queue.submit(numbered(number), idempotency=Idempotency(key, "body"))
    except (QueueFullError, TenantFullError) as error:
        return error.retry_after_s
    return None


@pytest.mark.parametrize("limit", ["max_queued", "max_open"])
async def test_a_place_is_kept_for_who_comes_back_under_the_same_key(valkey: Redis, limit: str) -> None:
    queue = JobQueue(valkey, max_queued=4) if limit == "max_queued" else JobQueue(valkey, max_open=4)
    await submit(queue, *range(4))
    told_s = await knock(queue, 10, "early")
    assert told_s is not None
    assert await knock(queue, 11, "early") == pytest.approx(told_s, abs=0.1), "whoever asks too soon loses nothing"
    await finish_one(queue, valkey, "turn-1")
    assert await knock(queue, 10, "early") is None, "there is a place, and nobody is due"
    assert await knock(queue, 20, "first") is not None
    await pass_time(valkey, 3600)
    for number in range(20, 30):
        assert await knock(queue, number, "first") is not None, "due, but there is no place"
    await pass_time(valkey, 2)
    await finish_one(queue, valkey, "turn-2")
    assert await knock(queue, 30, "newcomer") is not None, "the place is somebody's"
    assert await knock(queue, 31, "first") is None
    assert await valkey.zscore(PREFIX + f"promised:lane:{LANE}", "default:first") is None


async def test_a_place_is_not_kept_for_long(valkey: Redis) -> None:
    queue = JobQueue(valkey, max_queued=4)
    await submit(queue, *range(4))
    told_s = await knock(queue, 10, "gone")
    assert told_s is not None
    await finish_one(queue, valkey, "turn-1")
    await pass_time(valkey, told_s + 6)
    assert await knock(queue, 11, "newcomer") is None


async def test_half_of_the_places_are_for_whoever_comes_first(valkey: Redis) -> None:
    queue = JobQueue(valkey, max_queued=4)
    await submit(queue, *range(4))
    told_s = [await knock(queue, 10 + number, f"gone-{number}") or 0 for number in range(4)]
    for turn in range(3):
        await finish_one(queue, valkey, f"turn-{turn}")
    await pass_time(valkey, max(told_s))
    assert await knock(queue, 20, "newcomer-1") is None
    assert await knock(queue, 21, "newcomer-2") is not None


async def test_the_line_outside_has_an_end(valkey: Redis) -> None:
    queue = JobQueue(valkey, max_queued=2)
    await submit(queue, 1, 2)
    for number in range(50):
        assert await knock(queue, 10 + number, f"key-{number}") is not None
    assert await valkey.zcard(PREFIX + f"promised:lane:{LANE}") == 20


async def test_who_comes_for_a_place_in_vain_is_told_of_the_next_ones(valkey: Redis) -> None:
    queue = JobQueue(valkey, max_queued=4)
    for number in range(4):
        await queue.submit(numbered(number), cost_s=0.1)
    crowd = [f"key-{number}" for number in range(20)]
    told_s = [await knock(queue, 10, key) or 0 for key in crowd]
    assert told_s[-1] == pytest.approx(20 * 0.1, rel=0.1)
    await valkey.hset(PREFIX + f"lane:{LANE}", "work_ms", 80_000)  # slower than it was thought
    await pass_time(valkey, told_s[-1])
    told_s = [await knock(queue, 10, key) or 0 for key in crowd[-4:]]
    assert told_s == pytest.approx([20, 40, 60, 80], rel=0.01)
    assert await knock(queue, 10, "newcomer") == pytest.approx(100, rel=0.01)
