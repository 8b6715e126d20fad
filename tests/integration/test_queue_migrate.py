"""A queue that the first version left, keys and all, is taken over: nothing that it had accepted is lost."""

from typing import Any

from redis.asyncio import Redis

from app.jobs.keys import PREFIX
from app.jobs.queue import JobQueue, written
from app.jobs.schema import ImageJob, JobState
from tests.integration.queue_lab import FINAL, LANE, RESULT, claim_one, ids, numbered, pass_time

NOW_MS = 1_700_000_000_000


async def left_by_the_first_version(valkey: Redis) -> list[ImageJob]:
    """Jobs as it kept them: queued, held by a worker, delayed, completed, dead."""
    jobs = [numbered(number) for number in range(6)]
    more: list[dict[str, Any]] = [
        {"state": "queued"},
        {"state": "queued"},
        {"state": "in_progress", "token": "old", "worker": "w", "started_ms": NOW_MS, "attempts": 1},
        {"state": "delayed", "started_ms": NOW_MS, "attempts": 1},
        {"state": "completed", "finished_ms": NOW_MS, "result": written(RESULT)},
        {"state": "dead", "finished_ms": NOW_MS, "error": FINAL.model_dump_json()},
    ]
    for seq, (job, fields) in enumerate(zip(jobs, more, strict=True), 1):
        common: dict[str, Any] = {"tenant": "default", "lane": LANE, "spec": job.model_dump_json(), "seq": seq}
        counts = {"attempts": 0, "crashes": 0, "submitted_ms": NOW_MS}
        await valkey.hset(f"{PREFIX}job:{job.id}", mapping=common | counts | fields)
        await valkey.zadd(f"{PREFIX}tenant:default:jobs", {job.id: seq})
    await valkey.zadd(f"{PREFIX}queue:{LANE}", {jobs[0].id: 1, jobs[1].id: 2})
    await valkey.zadd(f"{PREFIX}lease", {jobs[2].id: NOW_MS})
    await valkey.zadd(f"{PREFIX}delayed", {jobs[3].id: NOW_MS})
    await valkey.zadd(f"{PREFIX}dead", {jobs[5].id: NOW_MS})
    await valkey.sadd(f"{PREFIX}lanes", LANE)
    await valkey.set(f"{PREFIX}seq", 6)
    return jobs


async def test_nothing_that_was_accepted_is_lost(valkey: Redis) -> None:
    jobs = await left_by_the_first_version(valkey)
    queue = JobQueue(valkey, lease_s=1)
    await queue.tick()
    drawn = []
    for number in range(4):
        claim = await claim_one(queue, f"token-{number}")
        await queue.complete(claim, RESULT)
        drawn.append(claim)
    assert sorted(ids(drawn)) == sorted(job.id for job in jobs[:4])
    page = await queue.page("default", limit=10)
    assert {record.job.id: record.state for record in page.records} == {
        job.id: JobState.DEAD if number == 5 else JobState.COMPLETED for number, job in enumerate(jobs)
    }
    stats = await queue.stats()
    assert (stats.in_progress, stats.delayed, stats.lanes[LANE].queued, stats.lanes[LANE].in_progress) == (0, 0, 0, 0)
    assert stats.totals == {"submitted": 6, "completed": 5, "dead": 1}
    assert await valkey.hgetall(f"{PREFIX}tenant:default") == {"open": "0", "work_ms": "0"}


async def test_it_is_done_once(valkey: Redis) -> None:
    jobs = await left_by_the_first_version(valkey)
    for _ in range(3):
        await JobQueue(valkey).tick()
    assert (await JobQueue(valkey).stats()).totals["submitted"] == len(jobs)


async def test_a_queue_of_this_version_is_left_as_it_is(queue: JobQueue, valkey: Redis) -> None:
    await queue.submit(numbered(1))
    await queue.tick()
    await pass_time(valkey, 1)
    await JobQueue(valkey).tick()
    assert (await queue.stats()).totals == {"submitted": 1}
