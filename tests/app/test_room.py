"""A full disk: no new jobs, and everything else goes on."""

from pathlib import Path

import pytest
from redis.asyncio import Redis

from app.jobs.room import StoreRoom
from app.jobs.store import open_store
from tests.app.gateway import check_error, running

MORE_THAN_ANY_DISK_MIB = 10**9


async def test_no_job_is_accepted_whose_picture_has_no_room_and_reading_goes_on(
    no_darkroom_environment: None, valkey: Redis, valkey_url: str, tmp_path: Path
) -> None:
    store_url = (tmp_path / "images").as_uri()
    async with running(valkey_url, store_url) as gateway:
        job = await gateway.submit()
        await gateway.complete(await gateway.claim(), b"picture")
    async with running(valkey_url, store_url, min_free_mib=MORE_THAN_ANY_DISK_MIB) as gateway:
        body = check_error(await gateway.post({"prompt": "a ring", "model": "tiny-sd3"}))
        assert (body["status"], body["code"]) == (503, "storage_full")
        assert body["detail"] == "The image store's disk is full; try again later."
        assert (await gateway.client.get(f"/v1/images/{job['id']}/content")).content == b"picture"
        assert await gateway.list_ids() == [job["id"]]


async def test_a_look_at_the_disk_is_kept_for_a_second(tmp_path: Path) -> None:
    now_s = 0.0
    folder = tmp_path / "images"
    room = StoreRoom(open_store(folder.as_uri()), 0, lambda: now_s)
    assert not await room.is_full()
    folder.rename(tmp_path / "elsewhere")
    assert not await room.is_full()
    now_s = 1.0
    with pytest.raises(Exception, match="cannot look"):
        await room.is_full()


async def test_a_cloud_is_never_full() -> None:
    assert not await StoreRoom(open_store("memory://"), MORE_THAN_ANY_DISK_MIB).is_full()
