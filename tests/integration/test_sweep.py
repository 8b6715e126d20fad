"""What is left in the store by jobs and workers that are gone is found and deleted; what anybody needs is not."""

from pathlib import Path

import pytest
from redis.asyncio import Redis

from app.jobs.queue import Claim, JobQueue
from app.jobs.store import ImageStore, checkpoint_path, open_store, preview_path, result_path
from app.jobs.sweep import delete_pictures, sweep
from app.jobs.upkeep import Upkeep
from tests.integration.queue_lab import FINAL, LANE, RESULT, claim_one, numbered, pass_time, submit


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return open_store(f"file://{tmp_path}/images")


@pytest.fixture
def upkeep(valkey: Redis) -> Upkeep:
    return Upkeep(valkey)


def files_of(claim: Claim) -> list[str]:
    """Everything that a worker may have written for its claim of a job."""
    job_id = claim.job.id
    return [result_path(job_id, claim.token, 0, "png"), checkpoint_path(job_id, 0), preview_path(job_id, 0)]


async def write(store: ImageStore, *paths: str) -> None:
    for path in paths:
        await store.put(path, b"bytes")


async def stored(store: ImageStore) -> set[str]:
    folders = ("results", "checkpoints", "previews")
    return {found.path for folder in folders async for page in store.pages(folder) for found in page}


async def test_what_a_running_job_has_written_stays(queue: JobQueue, store: ImageStore, upkeep: Upkeep) -> None:
    await submit(queue, 1)
    files = files_of(await claim_one(queue))
    await write(store, *files)
    assert await sweep(store, upkeep, 0) == 0
    assert await stored(store) == set(files)


async def test_of_a_completed_job_the_picture_stays(queue: JobQueue, store: ImageStore, upkeep: Upkeep) -> None:
    await submit(queue, 1)
    claim = await claim_one(queue)
    await write(store, *files_of(claim))
    await queue.complete(claim, RESULT)
    assert await sweep(store, upkeep, 0) == 2
    assert await stored(store) == {result_path(claim.job.id, claim.token, 0, "png")}


@pytest.mark.parametrize("end", ["failed", "canceled", "purged", "expired"])
async def test_of_a_job_that_came_to_nothing_nothing_stays(
    queue: JobQueue, valkey: Redis, store: ImageStore, upkeep: Upkeep, end: str
) -> None:
    assert await sweep(store, upkeep, 0) == 0  # from now on it is this queue's store
    await submit(queue, 1)
    claim = await claim_one(queue)
    await write(store, *files_of(claim))
    match end:
        case "failed":
            await queue.fail(claim, FINAL)
        case "canceled":
            await queue.cancel("default", claim.job.id)
            await queue.renew([claim])
        case "purged":
            await queue.complete(claim, RESULT)
            await upkeep.purge("default", [claim.job.id])
        case "expired":
            await queue.complete(claim, RESULT)
            await pass_time(valkey, 10)
            assert (await upkeep.expire(pictures_s=5, record_s=100)).job_ids == [claim.job.id]
    assert await sweep(store, upkeep, 0) == 3
    assert await stored(store) == set()


async def test_the_pictures_of_a_worker_that_lost_its_job_go_and_its_checkpoint_stays(
    queue: JobQueue, valkey: Redis, store: ImageStore, upkeep: Upkeep
) -> None:
    await submit(queue, 1)
    lost = await claim_one(queue, "token-1")
    await write(store, *files_of(lost))
    await pass_time(valkey, 2)
    await queue.tick()
    heir = await claim_one(queue, "token-2")
    assert await sweep(store, upkeep, 0) == 1
    assert await stored(store) == set(files_of(lost)[1:])
    await write(store, *files_of(heir))
    assert await sweep(store, upkeep, 0) == 0


async def test_what_nobody_ever_heard_of_goes_pictures_only_when_they_are_old(
    store: ImageStore, upkeep: Upkeep
) -> None:
    assert await sweep(store, upkeep, 0) == 0  # from now on it is this queue's store
    picture = "results/img_1/token/0.png"
    await write(store, picture, "checkpoints/img_2-0.safetensors", "previews/img_3-11.jpg")
    assert await sweep(store, upkeep, None) == 2
    assert await sweep(store, upkeep, 3600) == 0
    assert await stored(store) == {picture}
    assert await sweep(store, upkeep, -1) == 1
    assert await stored(store) == set()


async def test_the_store_of_another_queue_is_left_alone(
    queue: JobQueue, valkey: Redis, store: ImageStore, upkeep: Upkeep
) -> None:
    await submit(queue, 1)
    files = files_of(await claim_one(queue))
    await write(store, *files)
    assert await sweep(store, upkeep, 0) == 0  # it is this queue's now
    await valkey.flushall()
    assert await sweep(store, upkeep, -1) == 0
    assert await stored(store) == set(files)


async def test_a_store_of_before_it_had_a_name_is_known_by_its_jobs(
    queue: JobQueue, store: ImageStore, upkeep: Upkeep
) -> None:
    await write(store, "previews/img_3-11.jpg")
    assert await sweep(store, upkeep, 0) == 0  # nobody knows whose it is
    await submit(queue, 1)
    files = files_of(await claim_one(queue))
    await write(store, *files)
    assert await sweep(store, upkeep, 0) == 1
    assert await stored(store) == set(files)


async def test_an_empty_store_is_swept_in_vain(store: ImageStore, upkeep: Upkeep) -> None:
    assert await sweep(store, upkeep, 0) == 0


async def test_more_files_than_one_page_holds(queue: JobQueue, store: ImageStore, upkeep: Upkeep) -> None:
    [job] = await submit(queue, 1)
    [claim] = await queue.claim("worker-1", "token-1", [LANE], 1)
    kept = result_path(job.id, claim.token, 0, "png")
    assert await sweep(store, upkeep, 0) == 0
    await write(store, kept, *(f"results/{numbered(number).id}/t/0.png" for number in range(2, 1203)))
    assert await sweep(store, upkeep, -1) == 1201
    assert await stored(store) == {kept}


async def test_a_jobs_pictures_are_deleted_and_nobody_elses(store: ImageStore, tmp_path: Path) -> None:
    await write(store, "results/img_1/a/0.png", "results/img_1/b/1.png", "results/img_11/a/0.png")
    await delete_pictures(store, "img_1")
    assert await stored(store) == {"results/img_11/a/0.png"}
    assert [folder.name for folder in (tmp_path / "images" / "results").iterdir()] == ["img_11"], "no empty folder"
