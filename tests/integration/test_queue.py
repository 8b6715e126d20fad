"""The thin path: submit, claim, what a record says, what stats say, wakes."""

import asyncio

import pytest
from redis.asyncio import Redis

from app.jobs.errors import JobNotFoundError, QueueFullError, QueueUnavailableError
from app.jobs.keys import PREFIX
from app.jobs.queue import JobQueue, Verdict
from app.jobs.schema import ImageJob, JobState
from tests.integration.queue_lab import (
    LANE,
    OTHER_LANE,
    PROGRESS,
    RESULT,
    RETRYABLE,
    WORKER,
    claim_one,
    fences,
    ids,
    keyspace,
    numbered,
    pass_time,
    submit,
)


async def test_a_job_from_submit_to_result(queue: JobQueue, valkey: Redis, job: ImageJob) -> None:
    await queue.submit(job)
    record = await queue.read("default", job.id)
    assert (record.job, record.state, record.position) == (job, JobState.QUEUED, 0)
    assert (record.attempts, record.crashes) == (0, 0)
    assert (record.worker, record.started_ms, record.finished_ms) == (None, None, None)

    claim = await claim_one(queue, "token-1", "worker-1")
    assert (claim.job, claim.token) == (job, "token-1")
    record = await queue.read("default", job.id)
    assert (record.state, record.worker, record.attempts) == (JobState.IN_PROGRESS, "worker-1", 1)
    assert record.position is None
    assert record.started_ms is not None
    seconds, _ = await valkey.time()
    assert abs(record.started_ms / 1000 - seconds) < 5

    assert await queue.progress([(claim, PROGRESS)]) == [Verdict.OK]
    assert (await queue.read("default", job.id)).progress == PROGRESS

    assert await queue.complete(claim, RESULT) is Verdict.OK
    record = await queue.read("default", job.id)
    assert (record.state, record.result, record.error) == (JobState.COMPLETED, RESULT, None)
    assert record.started_ms is not None
    assert record.finished_ms is not None
    assert record.submitted_ms <= record.started_ms <= record.finished_ms


async def test_submitting_one_id_twice_makes_one_job(queue: JobQueue, valkey: Redis, job: ImageJob) -> None:
    await queue.submit(job)
    before = await keyspace(valkey)
    await queue.submit(job)
    assert await keyspace(valkey) == before


async def test_submitting_an_id_that_ended_does_not_run_it_again(queue: JobQueue, valkey: Redis, job: ImageJob) -> None:
    await queue.submit(job)
    await queue.complete(await claim_one(queue), RESULT)
    before = await keyspace(valkey)
    await queue.submit(job)
    assert await keyspace(valkey) == before


async def test_a_full_lane_refuses_and_the_others_do_not(valkey: Redis) -> None:
    queue = JobQueue(valkey, max_queued=2)
    await submit(queue, 1, 2)
    with pytest.raises(QueueFullError, match="2 jobs already wait for tiny-sd3") as refusal:
        await submit(queue, 3)
    assert refusal.value.retry_after_s > 0
    with pytest.raises(JobNotFoundError):
        await queue.read("default", numbered(3).id)
    await submit(queue, 1)  # a lost reply, asked again of a lane that has filled meanwhile
    await submit(queue, 4, model=OTHER_LANE)
    await queue.cancel("default", numbered(1).id)
    await submit(queue, 3)


async def test_a_claim_takes_the_oldest_over_all_its_lanes(queue: JobQueue) -> None:
    lanes = [LANE, OTHER_LANE, OTHER_LANE, "third", LANE, LANE, "not-ours"]
    for number, lane in enumerate(lanes):
        await submit(queue, 99 - number, model=lane)  # ids fall while the order of submission rises
    claims = await queue.claim("worker-1", "token-1", ["third", LANE, OTHER_LANE, "empty"], 4)
    assert ids(claims) == [numbered(number).id for number in (99, 98, 97, 96)]
    rest = await queue.claim("worker-1", "token-2", [OTHER_LANE, LANE, "third"], 10)
    assert ids(rest) == [numbered(number).id for number in (95, 94)]
    assert await queue.claim("worker-1", "token-3", [LANE, OTHER_LANE, "third"], 10) == []


async def test_the_order_survives_ten_jobs(queue: JobQueue) -> None:
    """Sequence numbers are compared as numbers: "10" comes after "9"."""
    jobs = [job for number in range(12) for job in await submit(queue, number, model=(LANE, OTHER_LANE)[number % 2])]
    assert ids(await queue.claim("worker-1", "token-1", [LANE, OTHER_LANE], 12)) == ids(jobs)


async def test_a_claim_asked_again_returns_the_same_jobs_and_takes_none(queue: JobQueue, valkey: Redis) -> None:
    await submit(queue, 1, 2, 3)
    claims = await queue.claim("worker-1", "token-1", [LANE], 2)
    before = await keyspace(valkey)
    assert fences(await queue.claim("worker-1", "token-1", [LANE], 2)) == fences(claims)
    assert await keyspace(valkey) == before


async def test_a_claim_asked_again_begins_its_leases_anew(queue: JobQueue, valkey: Redis) -> None:
    await submit(queue, 1, 2)
    claims = await queue.claim("worker-1", "token-1", [LANE], 2)
    await pass_time(valkey, 0.9)
    assert fences(await queue.claim("worker-1", "token-1", [LANE], 2)) == fences(claims)
    await pass_time(valkey, 0.9)
    assert (await queue.tick()).requeued == 0
    assert fences(await queue.claim("worker-1", "token-1", [LANE], 2)) == fences(claims)


async def test_a_claim_asked_again_after_some_ended_returns_the_others(queue: JobQueue) -> None:
    await submit(queue, 1, 2, 3, 4, 5)
    first, second, third, fourth = await queue.claim("worker-1", "token-1", [LANE], 4)
    await queue.complete(first, RESULT)
    await queue.cancel("default", second.job.id)
    await queue.fail(third, RETRYABLE)
    assert fences(await queue.claim("worker-1", "token-1", [LANE], 4)) == fences([fourth])
    assert (await queue.read("default", second.job.id)).state is JobState.CANCELED


async def test_a_token_whose_jobs_all_went_takes_no_new_ones(queue: JobQueue) -> None:
    await submit(queue, 1, 2)
    claims = await queue.claim("worker-1", "token-1", [LANE], 1)
    await queue.release(claims)
    assert await queue.claim("worker-1", "token-1", [LANE], 2) == []


async def test_a_token_that_found_nothing_finds_nothing_later(queue: JobQueue, valkey: Redis) -> None:
    assert await queue.claim("worker-1", "token-1", [LANE], 2) == []
    await submit(queue, 1)
    assert await queue.claim("worker-1", "token-1", [LANE], 2) == []  # perhaps the same call, twice on its way
    await pass_time(valkey, 2)
    assert ids(await queue.claim("worker-1", "token-1", [LANE], 2)) == [numbered(1).id]


async def test_a_claim_of_none_takes_none(queue: JobQueue) -> None:
    await submit(queue, 1)
    assert await queue.claim("worker-1", "token-1", [LANE], 0) == []
    assert await queue.claim("worker-1", "token-1", [], 1) == []


async def test_a_released_job_is_first_again_and_its_attempt_does_not_count(queue: JobQueue) -> None:
    await submit(queue, 1, 2)
    claim = await claim_one(queue, "token-1")
    await queue.progress([(claim, PROGRESS)])
    assert await queue.release([claim]) == [Verdict.OK]
    record = await queue.read("default", claim.job.id)
    assert (record.state, record.attempts, record.position) == (JobState.QUEUED, 0, 0)
    assert (record.progress, record.worker) == (None, None)
    assert (await claim_one(queue, "token-2")).job == claim.job


async def test_a_position_counts_the_jobs_of_its_own_lane(queue: JobQueue) -> None:
    await submit(queue, 1, 2)
    await submit(queue, 3, model=OTHER_LANE)
    await submit(queue, 4)
    positions = [(await queue.read("default", numbered(number).id)).position for number in (1, 2, 3, 4)]
    assert positions == [0, 1, 0, 2]


async def test_a_later_attempt_keeps_the_first_start_and_a_success_keeps_no_error(
    queue: JobQueue, valkey: Redis
) -> None:
    await submit(queue, 1)
    claim = await claim_one(queue, "token-1")
    started_ms = (await queue.read("default", claim.job.id)).started_ms
    await queue.fail(claim, RETRYABLE)
    assert (await queue.read("default", claim.job.id)).error == RETRYABLE
    await pass_time(valkey, 2)
    await queue.tick()
    await asyncio.sleep(0.005)
    claim = await claim_one(queue, "token-2")
    await queue.complete(claim, RESULT)
    record = await queue.read("default", claim.job.id)
    assert (record.started_ms, record.attempts, record.error) == (started_ms, 2, None)


async def test_other_tenants_jobs_are_not_found(queue: JobQueue, valkey: Redis) -> None:
    [theirs] = await submit(queue, 1, tenant="theirs")
    [ours] = await submit(queue, 2, tenant="ours")
    before = await keyspace(valkey)
    for job_id in (theirs.id, "img_unknown", ""):
        with pytest.raises(JobNotFoundError):
            await queue.read("ours", job_id)
        with pytest.raises(JobNotFoundError):
            await queue.cancel("ours", job_id)
    with pytest.raises(JobNotFoundError):
        await queue.page("ours", limit=10, after=theirs.id)
    assert [record.job for record in (await queue.page("ours", limit=10)).records] == [ours]
    assert (await queue.page("nobody", limit=10)).records == ()
    assert await keyspace(valkey) == before


async def test_stats_count_every_place(queue: JobQueue, valkey: Redis) -> None:
    queue = JobQueue(valkey, lease_s=10, max_crashes=1)
    await submit(queue, 1, 2, 3)
    await submit(queue, 4, 5, model=OTHER_LANE)
    [lost] = await queue.claim("worker-1", "token-1", [LANE], 1)
    await valkey.zadd(PREFIX + "lease", {lost.job.id: 0})
    await queue.tick()
    [failed, _] = await queue.claim("worker-1", "token-2", [LANE], 2)
    await queue.fail(failed, RETRYABLE, retry_after_s=60)
    await asyncio.sleep(0.01)
    stats = await queue.stats()
    assert {lane: numbers.queued for lane, numbers in stats.lanes.items()} == {LANE: 0, OTHER_LANE: 2}
    assert (stats.in_progress, stats.delayed, stats.dead) == (1, 1, 1)
    assert stats.lanes[LANE].oldest_s == 0
    assert 0.01 <= stats.lanes[OTHER_LANE].oldest_s < 5


async def test_a_heartbeat_counts_until_it_is_old(queue: JobQueue, valkey: Redis) -> None:
    busy = WORKER.model_copy(update={"jobs_in_progress": 3})
    await queue.heartbeat(WORKER, forget_after_s=6)
    await queue.heartbeat(busy, forget_after_s=6)
    stats = await queue.stats()
    assert stats.workers == (busy,)
    assert (stats.workers_live(LANE), stats.workers_live(OTHER_LANE)) == (1, 0)
    await pass_time(valkey, 5.5)
    assert (await queue.stats()).workers == (busy,)
    await pass_time(valkey, 0.5)
    assert (await queue.stats()).workers == ()
    assert await keyspace(valkey) == {}


async def test_a_worker_that_says_goodbye_is_gone_at_once(queue: JobQueue, valkey: Redis) -> None:
    other = WORKER.model_copy(update={"id": "worker-2"})
    for info in (WORKER, other):
        await queue.heartbeat(info, forget_after_s=6)
    for _ in range(2):
        await queue.heartbeat(WORKER, forget_after_s=0)
        assert (await queue.stats()).workers == (other,)
    await queue.heartbeat(other, forget_after_s=0)
    assert await keyspace(valkey) == {}


async def test_a_lane_wakes_whoever_waits_for_it_whenever_work_arrives(queue: JobQueue, valkey: Redis) -> None:
    async with queue.wakes() as lanes:

        async def next_lane() -> str:
            return await asyncio.wait_for(anext(lanes), 5)

        await submit(queue, 1)
        assert await next_lane() == LANE
        await submit(queue, 2, model=OTHER_LANE)
        assert await next_lane() == OTHER_LANE
        await queue.release([await claim_one(queue, "token-1")])
        assert await next_lane() == LANE
        await claim_one(queue, "token-2")
        await pass_time(valkey, 2)
        await queue.tick()
        assert await next_lane() == LANE
        await queue.fail(await claim_one(queue, "token-3"), RETRYABLE)
        await pass_time(valkey, 2)
        await queue.tick()
        assert await next_lane() == LANE


async def test_a_listener_whose_line_breaks_hears_of_it(queue: JobQueue, valkey: Redis) -> None:
    async with queue.wakes() as lanes:
        await valkey.client_kill_filter(_type="pubsub")
        with pytest.raises(QueueUnavailableError):
            await asyncio.wait_for(anext(lanes), 5)
    async with queue.wakes() as lanes:
        await submit(queue, 1)
        assert await asyncio.wait_for(anext(lanes), 5) == LANE
