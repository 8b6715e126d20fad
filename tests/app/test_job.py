"""Reading and canceling one job, in every state that it can be in."""

import asyncio
from datetime import datetime
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from app.jobs.keys import PREFIX
from app.jobs.queue import JobQueue
from app.jobs.schema import ErrorCode, JobError, Progress, Stage
from tests.app.gateway import ANY_JOB, Gateway, check_error, running, sha256, view
from tests.conftest import make_job

NOWHERE = "img_" + "f" * 32
TIMES = ("created_at", "started_at", "completed_at")


async def cancel(gateway: Gateway, job_id: str) -> dict[str, Any]:
    response = await gateway.client.post(f"/v1/images/{job_id}/cancel")
    assert response.status_code == 200, response.text
    return view(response)


def times(job: dict[str, Any]) -> list[bool]:
    """Say which of a job's times are known, and that they are in order."""
    known = [job[name] for name in TIMES if job[name] is not None]
    assert all(time.endswith("Z") for time in known)
    # As times: a whole second is written without a fraction, and sorts elsewhere as a string.
    moments = [datetime.fromisoformat(time) for time in known]
    assert moments == sorted(moments)
    return [job[name] is not None for name in TIMES]


def steps(job: dict[str, Any]) -> dict[str, Any]:
    """How far it is, without the estimate."""
    return {name: value for name, value in job["progress"].items() if name != "eta_seconds"}


async def test_a_job_from_its_submission_to_its_pictures(gateway: Gateway) -> None:
    submitted = await gateway.submit(num_inference_steps=10, n=2, seed=41, metadata={"order": "7"})
    job_id = submitted["id"]
    assert [warning["code"] for warning in submitted["warnings"]] == ["steps_too_few"]
    assert await gateway.read(job_id) == submitted
    assert times(submitted) == [True, False, False]

    claim = await gateway.claim()
    started = await gateway.read(job_id)
    assert (started["status"], times(started)) == ("in_progress", [True, True, False])
    assert steps(started) == {"percent": 0, "stage": "queued", "step": 0, "total_steps": 20}
    assert started["timings"]["queue_seconds"] >= 0

    await gateway.worker.progress([(claim, Progress(stage=Stage.DENOISE, step=7, total_steps=20))])
    assert steps(await gateway.read(job_id)) == {
        "percent": 35,
        "stage": "denoise",
        "step": 7,
        "total_steps": 20,
    }

    await gateway.complete(claim, b"one", b"two")
    done = await gateway.read(job_id)
    assert (done["status"], times(done)) == ("completed", [True, True, True])
    assert done["progress"] == {
        "percent": 100,
        "stage": "done",
        "step": 20,
        "total_steps": 20,
        "eta_seconds": 0,
    }
    assert done["data"] == [
        {
            "index": index,
            "url": f"http://gateway/v1/images/{job_id}/content?index={index}",
            "width": 128,
            "height": 128,
            "content_type": "image/png",
            "seed": 41 + index,
            "steps": 10,
            "size_bytes": 3,
            "sha256": sha256(picture),
        }
        for index, picture in enumerate([b"one", b"two"])
    ]
    assert done["parameters"] == submitted["parameters"] | {
        "model_revision": "revision-1",
        "worker_version": "1.2.3",
        "largest_batch": 3,
    }
    assert done["timings"] == {
        "queue_seconds": started["timings"]["queue_seconds"],
        "text_encode_seconds": 0.5,
        "denoise_seconds": 1.5,
        "vae_decode_seconds": 0.25,
        "image_encode_seconds": 0.125,
        "store_seconds": 0.0625,
        "total_seconds": done["timings"]["total_seconds"],
    }
    assert done["timings"]["total_seconds"] >= done["timings"]["queue_seconds"]
    assert done["usage"] == {"denoise_steps": 20, "gpu_seconds": 0.0, "cost_usd": None}
    assert (done["error"], done["metadata"]) == (None, {"order": "7"})
    assert (await gateway.client.get(done["data"][1]["url"])).content == b"two"


async def test_a_failed_job_says_why(gateway: Gateway) -> None:
    job_id = (await gateway.submit())["id"]
    await gateway.fail(await gateway.claim())
    job = await gateway.read(job_id)
    assert (job["status"], job["data"], times(job)) == ("failed", [], [True, True, True])
    assert job["error"] == {"code": "invalid_output", "message": "The image is all black.", "retryable": False}


async def test_a_job_that_waits_for_its_retry_is_queued_and_shows_no_error(gateway: Gateway) -> None:
    job_id = (await gateway.submit())["id"]
    error = JobError(code=ErrorCode.OUT_OF_MEMORY, message="The device's memory is full.", retryable=True)
    claim = await gateway.claim()
    await gateway.worker.progress([(claim, Progress(stage=Stage.DENOISE, step=7, total_steps=20))])
    await gateway.worker.fail(claim, error, retry_after_s=60)
    job = await gateway.read(job_id)
    assert (job["status"], job["error"], job["completed_at"]) == ("queued", None, None)
    assert job["progress"] == {"percent": 0, "stage": "queued", "step": 0, "total_steps": 20, "eta_seconds": None}
    assert (await cancel(gateway, job_id))["status"] == "canceled"


async def die(valkey: Redis) -> None:
    """Be the worker that takes the job and is never heard of again."""
    worker = JobQueue(valkey, lease_s=0.001, max_crashes=1)
    while not (await worker.stats()).dead:
        await worker.claim("worker-1", "token", ["tiny-sd3"], 1)
        await asyncio.sleep(0.005)
        await worker.tick()


async def test_a_job_that_its_workers_did_not_survive_has_failed(gateway: Gateway, valkey: Redis) -> None:
    job_id = (await gateway.submit())["id"]
    await die(valkey)
    job = await gateway.read(job_id)
    assert (job["status"], job["error"]["code"], job["error"]["retryable"]) == ("failed", "worker_lost", True)
    body = check_error(await gateway.client.get(f"/v1/images/{job_id}/content"))
    assert (body["status"], body["code"]) == (409, "image_failed")


async def test_cancel_while_queued(gateway: Gateway) -> None:
    job_id, next_id = [(await gateway.submit())["id"] for _ in range(2)]
    canceled = await cancel(gateway, job_id)
    assert (canceled["status"], times(canceled)) == ("canceled", [True, False, True])
    assert await cancel(gateway, job_id) == canceled == await gateway.read(job_id)
    assert (await gateway.claim()).job.id == next_id


async def test_cancel_while_it_is_drawn(gateway: Gateway) -> None:
    job_id = (await gateway.submit())["id"]
    claim = await gateway.claim()
    asked = await cancel(gateway, job_id)
    assert (asked["status"], asked["completed_at"]) == ("in_progress", None)
    assert await cancel(gateway, job_id) == asked
    assert (await gateway.client.get(f"/v1/images/{job_id}/content")).status_code == 202
    await gateway.worker.renew([claim])
    canceled = await gateway.read(job_id)
    assert (canceled["status"], times(canceled)) == ("canceled", [True, True, True])
    assert await cancel(gateway, job_id) == canceled


async def test_a_canceled_job_never_completes(gateway: Gateway) -> None:
    job_id = (await gateway.submit())["id"]
    claim = await gateway.claim()
    await cancel(gateway, job_id)
    await gateway.complete(claim, b"one")
    job = await gateway.read(job_id)
    assert (job["status"], job["data"], job["error"]) == ("canceled", [], None)


@pytest.mark.parametrize("ending", ["completed", "failed"])
async def test_cancel_leaves_an_ended_job_as_it_is(gateway: Gateway, ending: str) -> None:
    job_id = (await gateway.submit())["id"]
    claim = await gateway.claim()
    await (gateway.complete(claim, b"one") if ending == "completed" else gateway.fail(claim))
    before = await gateway.read(job_id)
    assert before["status"] == ending
    assert await cancel(gateway, job_id) == before == await gateway.read(job_id)


UNKNOWN_IDS = [
    NOWHERE,
    "img_",
    "x",
    "img_" + "0" * 32 + "%0A",
    "%00",
    "%FF%FE",
    "%ED%A0%80",
    "*",
    "{q}",
    "x" * 5_000,
    "%7B%7D%5B%5D",
]


@pytest.mark.parametrize("suffix", ["", "/content", "/preview", "/cancel"])
async def test_an_unknown_job_is_not_found(gateway: Gateway, valkey: Redis, suffix: str) -> None:
    for job_id in UNKNOWN_IDS:
        url = httpx.URL("http://gateway", raw_path=f"/v1/images/{job_id}{suffix}".encode())
        body = check_error(await gateway.client.request("POST" if suffix == "/cancel" else "GET", url))
        assert (body["status"], body["code"]) == (404, "image_not_found"), job_id
        assert body["detail"] == "there is no such job"
    assert not await valkey.exists(ANY_JOB)


async def test_another_tenants_job_is_not_found_and_not_touched(gateway: Gateway, queue: JobQueue) -> None:
    theirs = make_job(tenant="other")
    await queue.submit(theirs)
    for method, suffix in (("GET", ""), ("GET", "/content"), ("GET", "/preview"), ("POST", "/cancel")):
        answer = await gateway.client.request(method, f"/v1/images/{theirs.id}{suffix}")
        nothing = await gateway.client.request(method, f"/v1/images/{NOWHERE}{suffix}")
        ours, unknown = check_error(answer), check_error(nothing)
        assert ours["status"] == 404
        assert {**ours, "request_id": ""} == {**unknown, "request_id": ""}
    assert (await queue.read("other", theirs.id)).state == "queued"


async def test_the_gateway_may_restart_between_any_two_requests(
    no_darkroom_environment: None, valkey: Redis, valkey_url: str
) -> None:
    async with running(valkey_url) as before:
        job = await before.submit()
    async with running(valkey_url) as after:
        assert await after.read(job["id"]) == job


async def test_when_a_job_should_be_finished(gateway: Gateway, valkey: Redis) -> None:
    """Its cost is 20 steps of 1/64 megapixel and two rows, at the rate that is taken while nobody has measured any."""
    cost_s = pytest.approx(20 * 2 * 0.1 / 64, abs=0.002)
    first, second = await gateway.submit(), await gateway.submit()
    for job in (first, second):
        assert job["progress"]["eta_seconds"] - job["queue"]["eta_seconds"] == cost_s
    claim = await gateway.claim()
    assert (await gateway.read(first["id"]))["progress"]["eta_seconds"] == cost_s
    # Five of 20 steps in a hundred seconds: a long rest, though not yet three times that.
    key = f"{PREFIX}job:{first['id']}"
    await valkey.hset(key, "started_ms", int(await valkey.hget(key, "started_ms") or 0) - 100_000)
    await gateway.worker.progress([(claim, Progress(stage=Stage.DENOISE, step=5, total_steps=20))])
    assert (await gateway.read(first["id"]))["progress"]["eta_seconds"] == pytest.approx(75, abs=5)
    await cancel(gateway, first["id"])
    assert (await gateway.read(first["id"]))["progress"]["eta_seconds"] is None
    await cancel(gateway, second["id"])
    assert (await gateway.read(second["id"]))["progress"]["eta_seconds"] == 0


@pytest.mark.parametrize("keep_s", [3600.0, None])
async def test_when_its_pictures_expire(
    no_darkroom_environment: None, valkey: Redis, valkey_url: str, keep_s: float | None
) -> None:
    async with running(valkey_url, keep_pictures_s=keep_s) as gateway:
        job = await gateway.submit()
        assert job["expires_at"] is None
        assert job["urls"]["events"] == f"{job['urls']['self']}/events"
        await gateway.complete(await gateway.claim(), b"one")
        done = await gateway.read(job["id"])
        if keep_s is None:
            assert done["expires_at"] is None
        else:
            kept = datetime.fromisoformat(done["expires_at"]) - datetime.fromisoformat(done["completed_at"])
            assert kept.total_seconds() == keep_s


async def test_a_dead_job_does_not_expire(gateway: Gateway, valkey: Redis) -> None:
    job_id = (await gateway.submit())["id"]
    await die(valkey)
    job = await gateway.read(job_id)
    assert (job["status"], job["expires_at"]) == ("failed", None)
