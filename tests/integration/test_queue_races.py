"""Many callers at once, each on a connection of its own."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from app.jobs.errors import QueueFullError
from app.jobs.keys import PREFIX
from app.jobs.queue import JobQueue, Verdict
from app.jobs.schema import JobState
from app.jobs.scripts import connect
from tests.integration.queue_lab import FINAL, LANE, RESULT, claim_one, fences, keyspace, numbered, submit


@pytest.fixture
async def other_queue(valkey_url: str, valkey: Redis) -> AsyncIterator[JobQueue]:
    """Another process's view: its own client of the same server."""
    client = connect(valkey_url)
    yield JobQueue(client, lease_s=1.0)
    await client.aclose()


async def test_fifty_claimers_never_get_the_same_job(queue: JobQueue) -> None:
    jobs = await submit(queue, *range(240))

    async def drain(worker: int) -> list[str]:
        taken: list[str] = []
        for call in range(50):
            claims = await queue.claim(f"worker-{worker}", f"token-{worker}-{call}", [LANE], 1 + worker % 4)
            if not claims:
                return taken
            taken += [claim.job.id for claim in claims]
        raise AssertionError("the lane never ran dry")

    taken = Counter(job_id for share in await asyncio.gather(*map(drain, range(50))) for job_id in share)
    assert taken == Counter(job.id for job in jobs)


async def test_one_claim_asked_fifty_times_at_once_is_one_claim(queue: JobQueue) -> None:
    await submit(queue, *range(10))
    replies = await asyncio.gather(*(queue.claim("worker-1", "token-1", [LANE], 3) for _ in range(50)))
    assert all(fences(reply) == fences(replies[0]) for reply in replies)
    assert Counter(claim.started_before for reply in replies for claim in reply) == {False: 3, True: 147}
    assert (await queue.stats()).in_progress == 3


async def test_one_job_submitted_fifty_times_at_once_is_one_job(queue: JobQueue, valkey: Redis) -> None:
    await asyncio.gather(*(queue.submit(numbered(1)) for _ in range(50)))
    keys = await keyspace(valkey)
    assert keys[f"queue:{LANE}:2:default"] == {numbered(1).id: 1}
    assert keys["seq"] == "1"


async def test_a_full_lane_is_never_overfilled(valkey: Redis) -> None:
    queue = JobQueue(valkey, max_queued=10)
    outcomes = await asyncio.gather(*(queue.submit(numbered(number)) for number in range(50)), return_exceptions=True)
    assert sum(isinstance(outcome, QueueFullError) for outcome in outcomes) == 40
    assert (await queue.stats()).lanes[LANE].queued == 10


@pytest.mark.parametrize("end", [JobState.COMPLETED, JobState.FAILED])
async def test_a_cancel_racing_a_last_word_leaves_one_end(
    queue: JobQueue, other_queue: JobQueue, end: JobState
) -> None:
    async def cancel(job_id: str) -> None:
        await asyncio.sleep(random.choice((0, 0.0002, 0.0005)))
        await other_queue.cancel("default", job_id)

    for number in range(40):
        await submit(queue, number)
        claim = await claim_one(queue, f"token-{number}")
        last_word = queue.complete(claim, RESULT) if end is JobState.COMPLETED else queue.fail(claim, FINAL)
        _, verdict = await asyncio.gather(cancel(claim.job.id), last_word)
        record = await queue.read("default", claim.job.id)
        assert verdict in (Verdict.OK, Verdict.CANCEL)
        assert record.state is (end if verdict is Verdict.OK else JobState.CANCELED)
        assert record.result == (RESULT if record.state is JobState.COMPLETED else None)
        assert record.error == (FINAL if record.state is JobState.FAILED else None)
        await queue.cancel("default", claim.job.id)
        assert await queue.complete(claim, RESULT) in (verdict, Verdict.LOST)
        assert await queue.read("default", claim.job.id) == record


async def test_a_cancel_racing_a_claim_either_stops_or_warns(queue: JobQueue, other_queue: JobQueue) -> None:
    for number in range(40):
        await submit(queue, number)
        claims, _ = await asyncio.gather(
            queue.claim("worker-1", f"token-{number}", [LANE], 1),
            other_queue.cancel("default", numbered(number).id),
        )
        state = (await queue.read("default", numbered(number).id)).state
        assert state is (JobState.CANCELING if claims else JobState.CANCELED)


async def test_two_workers_with_one_job_show_one_result(queue: JobQueue, other_queue: JobQueue, valkey: Redis) -> None:
    """The first lost its lease without noticing: whichever answers first, only the holder's result is seen."""
    for number in range(20):
        await submit(queue, number)
        stale = await claim_one(queue, f"stale-{number}")
        await valkey.zadd(PREFIX + "lease", {stale.job.id: 0})
        await queue.tick()
        holder = await claim_one(other_queue, f"holder-{number}", "worker-2")
        theirs, ours = await asyncio.gather(
            queue.complete(stale, RESULT),
            other_queue.complete(holder, RESULT.model_copy(update={"worker": "worker-2"})),
        )
        assert (theirs, ours) == (Verdict.LOST, Verdict.OK)
        result = (await queue.read("default", holder.job.id)).result
        assert result is not None
        assert result.worker == "worker-2"
