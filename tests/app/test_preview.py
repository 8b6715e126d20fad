"""A picture while it develops: what is shown before there is anything, meanwhile, and once it is over."""

import asyncio
from pathlib import Path

import pytest
from redis.asyncio import Redis

from app.jobs.queue import JobQueue
from app.jobs.schema import ErrorCode, JobError
from app.jobs.store import preview_path
from tests.app.gateway import Gateway, check_error
from tests.conftest import make_job

RETRYABLE = JobError(code=ErrorCode.OUT_OF_MEMORY, message="The device's memory is full.", retryable=True)


async def develop(gateway: Gateway, job_id: str, *previews: bytes) -> None:
    """Be the worker that leaves these previews, one an image."""
    for index, picture in enumerate(previews):
        await gateway.services.store.put(preview_path(job_id, index), picture)


async def developing(gateway: Gateway, *previews: bytes, **fields: object) -> str:
    """Give the address of the previews of a job that a worker holds."""
    job_id: str = (await gateway.submit(**fields))["id"]
    await gateway.claim()
    await develop(gateway, job_id, *previews)
    return f"/v1/images/{job_id}/preview"


async def look(gateway: Gateway, url: str) -> tuple[int, bytes]:
    response = await gateway.client.get(url)
    return response.status_code, response.content


async def test_before_there_is_one_there_is_a_time_to_look_again(gateway: Gateway) -> None:
    job = await gateway.submit()
    url = job["urls"]["preview"]
    assert url == f"http://gateway/v1/images/{job['id']}/preview"
    queued = await gateway.client.get(url)
    await gateway.claim()
    in_progress = await gateway.client.get(url)
    for response in (queued, in_progress):
        assert (response.status_code, response.content) == (202, b"")
        assert int(response.headers["retry-after"]) >= 1


async def test_the_latest_is_shown_and_kept_by_no_cache(gateway: Gateway) -> None:
    url = await developing(gateway)
    for picture in (b"\xff\xd8 rough", b"\xff\xd8 less rough"):
        await develop(gateway, url.split("/")[3], picture)
        response = await gateway.client.get(url)
        assert (response.status_code, response.content) == (200, picture)
        assert response.headers["content-type"] == "image/jpeg"
        assert response.headers["cache-control"] == "no-store"
        assert "etag" not in response.headers


async def test_each_image_has_its_own(gateway: Gateway) -> None:
    url = await developing(gateway, b"zero", b"one", n=3)
    assert await look(gateway, url) == await look(gateway, f"{url}?index=0") == (200, b"zero")
    assert await look(gateway, f"{url}?index=1") == (200, b"one")
    assert await look(gateway, f"{url}?index=2") == (202, b"")


@pytest.mark.parametrize("index", ["1", str(10**30), "-1", "one", ""])
async def test_an_image_that_the_job_does_not_have(gateway: Gateway, index: str) -> None:
    url = await developing(gateway, b"zero", b"a preview that nothing asked for")
    body = check_error(await gateway.client.get(url, params={"index": index}))
    found = (body["status"], body["code"], body["param"])
    assert found == ((404, "image_not_found", None) if index.isdecimal() else (422, "invalid_index", "index"))


async def test_it_stays_while_the_job_waits_for_another_attempt(gateway: Gateway, valkey: Redis) -> None:
    job_id = (await gateway.submit())["id"]
    url = f"/v1/images/{job_id}/preview"
    claim = await gateway.claim()
    await develop(gateway, job_id, b"half")
    await gateway.worker.release([claim])
    assert await look(gateway, url) == (200, b"half")
    await gateway.worker.fail(await gateway.claim("token-2"), RETRYABLE, retry_after_s=60)
    assert (await gateway.read(job_id))["status"] == "queued"
    assert await look(gateway, url) == (200, b"half")


async def test_it_stays_until_the_worker_notices_that_the_job_is_canceled(gateway: Gateway) -> None:
    job_id = (await gateway.submit())["id"]
    claim = await gateway.claim()
    await develop(gateway, job_id, b"half")
    await gateway.client.post(f"/v1/images/{job_id}/cancel")
    assert await look(gateway, f"/v1/images/{job_id}/preview") == (200, b"half")
    await gateway.worker.renew([claim])
    body = check_error(await gateway.client.get(f"/v1/images/{job_id}/preview"))
    assert (body["status"], body["code"]) == (410, "preview_gone")


@pytest.mark.parametrize("swept", [True, False])
@pytest.mark.parametrize(
    ("ending", "said"),
    [
        ("completed", "the job is completed: fetch the image itself, its `content`"),
        ("failed", "the job is failed: there is nothing more to see of it"),
        ("dead", "the job is failed: there is nothing more to see of it"),
        ("canceled", "the job is canceled: there is nothing more to see of it"),
    ],
)
async def test_once_the_job_is_over_it_is_gone(
    gateway: Gateway, valkey: Redis, ending: str, said: str, swept: bool
) -> None:
    job_id = (await gateway.submit())["id"]
    worker = JobQueue(valkey, lease_s=0.001 if ending == "dead" else 15, max_crashes=1)
    [claim] = await worker.claim("worker-1", "token", ["tiny-sd3"], 1)
    await develop(gateway, job_id, b"last")
    match ending:
        case "completed":
            await gateway.complete(claim, b"picture")
        case "failed":
            await gateway.fail(claim)
        case "canceled":
            await gateway.client.post(f"/v1/images/{job_id}/cancel")
            await gateway.worker.renew([claim])
        case "dead":
            while not (await worker.stats()).dead:
                await asyncio.sleep(0.005)
                await worker.tick()
    if swept:
        await gateway.services.store.delete([preview_path(job_id, 0)])
    body = check_error(await gateway.client.get(f"/v1/images/{job_id}/preview"))
    assert (body["status"], body["code"], body["detail"]) == (410, "preview_gone", said)
    assert check_error(await gateway.client.get(f"/v1/images/{job_id}/preview?index=1"))["status"] == 404


async def test_another_tenants_preview_is_not_found(gateway: Gateway, queue: JobQueue) -> None:
    theirs = make_job(tenant="other")
    await queue.submit(theirs)
    await gateway.claim()
    await develop(gateway, theirs.id, b"theirs")
    response = await gateway.client.get(f"/v1/images/{theirs.id}/preview")
    body = check_error(response)
    assert (body["status"], body["code"], body["detail"]) == (404, "image_not_found", "there is no such job")


async def test_a_store_that_cannot_be_read_is_not_a_preview_that_comes_later(gateway: Gateway, tmp_path: Path) -> None:
    url = await developing(gateway, b"half")
    [file] = (tmp_path / "images").rglob("*-0.jpg")
    file.unlink()
    file.symlink_to(file)
    body = check_error(await gateway.client.get(url))
    assert (body["status"], body["code"]) == (503, "storage_unavailable")
    assert str(tmp_path) not in body["detail"]
