"""Deleting a job with all that was drawn for it, and Cancel-After."""

from pathlib import Path

import pytest
from redis.asyncio import Redis

from app.jobs.store import checkpoint_path, preview_path
from tests.app.gateway import Gateway, check_error, view
from tests.conftest import make_job
from tests.integration.queue_lab import keyspace, pass_time, until


async def is_gone(gateway: Gateway, job_id: str, valkey: Redis) -> None:
    url = f"/v1/images/{job_id}"
    for method, path in (("GET", url), ("DELETE", url), ("GET", f"{url}/content"), ("POST", f"{url}/cancel")):
        body = check_error(await gateway.client.request(method, path))
        assert (body["status"], body["code"]) == (404, "image_not_found")
    assert await gateway.list_ids() == []
    # What a claim gave is remembered for a lease, in case its reply was lost.
    left = {name: value for name, value in (await keyspace(valkey)).items() if not name.startswith("claim:")}
    assert job_id not in str(left)


async def test_nothing_is_left_of_a_finished_job(gateway: Gateway, valkey: Redis, tmp_path: Path) -> None:
    job_id = (await gateway.submit(n=2))["id"]
    await gateway.complete(await gateway.claim(), b"one", b"two")
    for path in (preview_path(job_id, 1), checkpoint_path(job_id, 0)):
        await gateway.services.store.put(path, b"left behind")
    response = await gateway.client.delete(f"/v1/images/{job_id}")
    assert (response.status_code, response.content) == (204, b"")
    await is_gone(gateway, job_id, valkey)
    files = [path.relative_to(tmp_path / "images") for path in (tmp_path / "images").rglob("*") if path.is_file()]
    assert files in ([], [Path("queue")]), "but for whose store it is"


async def test_a_job_that_waits_is_canceled_and_deleted(gateway: Gateway, valkey: Redis) -> None:
    job_id = (await gateway.submit())["id"]
    assert (await gateway.client.delete(f"/v1/images/{job_id}")).status_code == 204
    await is_gone(gateway, job_id, valkey)
    assert (await gateway.worker.stats()).totals["canceled"] == 1
    assert 'model="tiny-sd3",status="canceled"} 1.0' in (await gateway.client.get("/metrics")).text


async def test_a_job_that_a_worker_holds_is_deleted_once_that_has_stopped(gateway: Gateway, valkey: Redis) -> None:
    job_id = (await gateway.submit())["id"]
    claim = await gateway.claim()
    for _ in range(2):
        response = await gateway.client.delete(f"/v1/images/{job_id}")
        body = check_error(response)
        assert (body["status"], body["code"]) == (409, "image_in_progress")
        assert (response.headers["retry-after"], response.headers["x-should-retry"]) == ("1", "true")
    await gateway.complete(claim, b"late")
    assert (await gateway.read(job_id))["status"] == "canceled"
    assert (await gateway.client.delete(f"/v1/images/{job_id}")).status_code == 204
    await is_gone(gateway, job_id, valkey)


async def test_another_tenants_job_is_neither_deleted_nor_canceled(gateway: Gateway) -> None:
    theirs = make_job(tenant="other")
    await gateway.worker.submit(theirs)
    assert check_error(await gateway.client.delete(f"/v1/images/{theirs.id}"))["code"] == "image_not_found"
    assert (await gateway.worker.read("other", theirs.id)).state == "queued"


async def test_an_idempotency_key_makes_a_new_job_after_the_old_one_is_deleted(gateway: Gateway) -> None:
    async def ask() -> str:
        fields = {"prompt": "a ring", "model": "tiny-sd3"}
        answer = await gateway.client.post("/v1/images", json=fields, headers={"idempotency-key": "key-1"})
        return str(view(answer)["id"])

    first = await ask()
    assert await ask() == first
    await gateway.client.delete(f"/v1/images/{first}")
    assert await ask() != first


async def test_files_that_cannot_be_deleted_are_left_to_the_sweep(
    gateway: Gateway, valkey: Redis, tmp_path: Path
) -> None:
    job_id = (await gateway.submit())["id"]
    await gateway.complete(await gateway.claim(), b"one")
    [picture] = (tmp_path / "images").rglob("0.png")
    folder = picture.parent.rename(picture.parent.with_name("moved"))
    folder.with_name("token").symlink_to(folder.with_name("token"))  # a loop: the store gives up on it
    assert (await gateway.client.delete(f"/v1/images/{job_id}")).status_code == 204
    await is_gone(gateway, job_id, valkey)


async def test_a_job_is_canceled_when_it_is_not_finished_by_then(gateway: Gateway, valkey: Redis) -> None:
    fields = {"prompt": "a ring", "model": "tiny-sd3"}
    answer = await gateway.client.post("/v1/images", json=fields, headers={"cancel-after": "100"})
    job_id, other = view(answer)["id"], (await gateway.submit())["id"]
    await pass_time(valkey, 99)
    assert (await gateway.read(job_id))["status"] == "queued"
    await pass_time(valkey, 2)

    async def is_canceled() -> bool:
        return bool((await gateway.read(job_id))["status"] == "canceled")

    await until(is_canceled)
    assert (await gateway.read(other))["status"] == "queued"


@pytest.mark.parametrize("header", ["0", "-1", "soon", "", "1.5", "86401", "9" * 5_000, "1s"])
async def test_a_cancel_after_that_is_none_is_refused(gateway: Gateway, header: str) -> None:
    fields = {"prompt": "a ring", "model": "tiny-sd3"}
    body = check_error(await gateway.client.post("/v1/images", json=fields, headers={"cancel-after": header}))
    assert (body["status"], body["code"], body["param"]) == (422, "invalid_cancel_after", "cancel_after")
