"""What the gateway does beside answering, with a real queue and store."""

import asyncio

import pytest
from redis.asyncio import Redis

from app import housekeeping
from app.jobs.keys import PREFIX
from app.jobs.schema import StepTime, WorkerInfo
from app.jobs.store import ImageNotStoredError
from tests.app.gateway import check_error, running


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is done in minutes is done at once, and again and again."""
    for name in ("_LOOK_EVERY_S", "_TICK_EVERY_S", "_EXPIRE_EVERY_S", "_SWEEP_EVERY_S"):
        monkeypatch.setattr(housekeeping, name, 0.05)


async def test_pictures_go_in_time_and_their_record_says_so(
    no_darkroom_environment: None, hurried: None, valkey: Redis, valkey_url: str
) -> None:
    async with running(valkey_url, keep_pictures_s=0.3) as gateway:
        job_id = (await gateway.submit())["id"]
        result = await gateway.complete(await gateway.claim(), b"picture")
        assert (await gateway.client.get(f"/v1/images/{job_id}/content")).content == b"picture"
        await asyncio.sleep(0.6)
        body = check_error(await gateway.client.get(f"/v1/images/{job_id}/content"))
        assert (body["status"], body["code"]) == (410, "image_gone")
        with pytest.raises(ImageNotStoredError):
            await gateway.services.store.get(result.images[0].path)
        assert (await gateway.read(job_id))["status"] == "completed"


async def test_without_a_limit_pictures_stay(
    no_darkroom_environment: None, hurried: None, valkey: Redis, valkey_url: str
) -> None:
    async with running(valkey_url, keep_pictures_s="") as gateway:
        job_id = (await gateway.submit())["id"]
        await gateway.complete(await gateway.claim(), b"picture")
        await asyncio.sleep(0.4)
        assert (await gateway.client.get(f"/v1/images/{job_id}/content")).content == b"picture"


async def test_orphans_are_swept(no_darkroom_environment: None, hurried: None, valkey: Redis, valkey_url: str) -> None:
    async with running(valkey_url) as gateway:
        store = gateway.services.store
        await asyncio.sleep(0.2)  # it takes an empty store for its queue's
        await store.put("checkpoints/img_1-0.safetensors", b"latents")
        await asyncio.sleep(0.4)
        with pytest.raises(ImageNotStoredError):
            await store.get("checkpoints/img_1-0.safetensors")


async def test_work_in_line_is_told_by_what_workers_measure(
    no_darkroom_environment: None, hurried: None, valkey: Redis, valkey_url: str
) -> None:
    async with running(valkey_url) as gateway:
        worker = WorkerInfo(
            id="worker-1",
            version="1",
            models=("tiny-sd3",),
            device="cpu",
            jobs_in_progress=0,
            step_times=(StepTime(model="tiny-sd3", height=128, width=128, rows=2, seconds=0.5),),
        )
        await gateway.worker.heartbeat(worker, forget_after_s=60)
        await asyncio.sleep(0.3)
        job_id = (await gateway.submit(num_inference_steps=4, n=2, width=128, height=128, guidance_scale=3))["id"]
        assert await valkey.hget(f"{PREFIX}job:{job_id}", "cost_ms") == str(1000 * 4 * 2 // 2)
