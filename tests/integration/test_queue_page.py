"""Lists of jobs: newest first, page by page, with filters, at a bounded cost."""

import pytest
from redis.asyncio import Redis

from app.jobs.errors import JobNotFoundError
from app.jobs.keys import PREFIX
from app.jobs.queue import JobQueue
from app.jobs.schema import JobState
from tests.integration.queue_lab import LANE, OTHER_LANE, RESULT, claim_one, numbered, submit


async def walk(
    queue: JobQueue, limit: int, *, model: str = "", states: tuple[JobState, ...] = ()
) -> tuple[list[int], list[int]]:
    """The numbers of all jobs of all pages, and each page's size."""
    numbers: list[int] = []
    sizes: list[int] = []
    after = ""
    while True:
        page = await queue.page("default", limit=limit, after=after, model=model, states=states)
        numbers += [int(record.job.id.removeprefix("img_"), 16) for record in page.records]
        sizes.append(len(page.records))
        if page.next_after is None:
            return numbers, sizes
        assert page.next_after not in ("", after)
        after = page.next_after


@pytest.mark.parametrize(
    ("limit", "sizes"), [(1, [1] * 6), (2, [2, 2, 2]), (3, [3, 3]), (4, [4, 2]), (5, [5, 1]), (6, [6]), (7, [6])]
)
async def test_pages_are_full_newest_first_and_end_exactly(queue: JobQueue, limit: int, sizes: list[int]) -> None:
    await submit(queue, 3, 1, 5, 2, 6, 4)
    assert await walk(queue, limit) == ([4, 6, 2, 5, 1, 3], sizes)


async def test_no_jobs_are_one_empty_page(queue: JobQueue) -> None:
    assert await walk(queue, 20) == ([], [0])


async def test_jobs_submitted_meanwhile_shift_no_page(queue: JobQueue) -> None:
    await submit(queue, 1, 2, 3, 4)
    first = await queue.page("default", limit=2)
    await submit(queue, 5, 6)
    second = await queue.page("default", limit=2, after=first.next_after or "")
    assert [record.job for record in second.records] == [numbered(2), numbered(1)]
    assert second.next_after is None


async def test_a_page_after_the_oldest_is_empty(queue: JobQueue) -> None:
    await submit(queue, 1, 2)
    page = await queue.page("default", limit=2, after=numbered(1).id)
    assert (page.records, page.next_after) == ((), None)


async def test_a_page_after_an_unknown_job_is_not_found(queue: JobQueue) -> None:
    await submit(queue, 1)
    with pytest.raises(JobNotFoundError):
        await queue.page("default", limit=2, after="img_unknown")


async def test_filters_by_model_and_by_states(queue: JobQueue) -> None:
    await submit(queue, 1, 2, 3)
    await submit(queue, 4, 5, model=OTHER_LANE)
    await queue.complete(await claim_one(queue), RESULT)
    await queue.cancel("default", numbered(2).id)
    await queue.cancel("default", numbered(5).id)
    assert await walk(queue, 9, model=LANE) == ([3, 2, 1], [3])
    assert await walk(queue, 9, states=(JobState.CANCELED,)) == ([5, 2], [2])
    assert await walk(queue, 9, states=(JobState.CANCELED, JobState.COMPLETED)) == ([5, 2, 1], [3])
    assert await walk(queue, 9, model=OTHER_LANE, states=(JobState.CANCELED,)) == ([5], [1])
    assert await walk(queue, 9, model="unknown") == ([], [0])
    assert await walk(queue, 1, model=LANE) == ([3, 2, 1], [1, 1, 1])
    assert await walk(queue, 1, states=(JobState.CANCELED,)) == ([5, 2], [1, 1])


async def test_a_filter_that_matches_little_looks_at_a_bounded_number_of_jobs(queue: JobQueue, valkey: Redis) -> None:
    # Counted from the newest: both sides of one look at 2000 jobs, and the very oldest.
    total, rare = 4100, {0, 1999, 2000, 4099}
    await submit(queue, *rare, model=OTHER_LANE)
    pipeline = valkey.pipeline(transaction=False)
    for place in range(total):
        pipeline.zadd(PREFIX + "jobs:default", {numbered(place).id: total - place})
        if place not in rare:  # as much of a job as a list looks at, without 4096 round trips
            pipeline.hset(PREFIX + "job:" + numbered(place).id, mapping={"state": "queued", "lane": LANE})
    await pipeline.execute()

    async def looks() -> int:
        calls: int = (await valkey.info("commandstats"))["cmdstat_hmget"]["calls"]
        return calls

    before = await looks()
    page = await queue.page("default", limit=20, model=OTHER_LANE)
    assert 2000 <= await looks() - before < 2010  # and the two jobs that it found
    assert page.next_after == numbered(1999).id
    assert await walk(queue, 20, model=OTHER_LANE) == (sorted(rare), [2, 1, 1])
    assert await walk(queue, 2, model=OTHER_LANE) == (sorted(rare), [2, 1, 1])
    assert await walk(queue, 1, model=OTHER_LANE) == (sorted(rare), [1, 1, 1, 1])
    assert await walk(queue, 20, states=(JobState.DEAD,)) == ([], [0, 0, 0])
