"""The APIs that wait: what becomes of their jobs, and what their clients are told."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from app.jobs.keys import PREFIX
from app.jobs.schema import ErrorCode, JobError, Progress, Stage
from app.jobs.store import preview_path
from tests.app.gateway import Gateway, check_error, running

OPENAI: tuple[str, dict[str, Any]] = ("/v1/images/generations", {"model": "tiny-sd3", "prompt": "a ring"})
HF: tuple[str, dict[str, Any]] = ("/hf/tiny-sd3", {"inputs": "a ring"})
A1111: tuple[str, dict[str, Any]] = (
    "/sdapi/v1/txt2img",
    {"prompt": "a ring", "override_settings": {"sd_model_checkpoint": "tiny-sd3"}},
)
ALL = pytest.mark.parametrize(("path", "body"), [OPENAI, HF, A1111], ids=["openai", "hf", "a1111"])


@pytest.fixture
async def impatient(
    no_darkroom_environment: None, valkey: Redis, valkey_url: str, tmp_path: Path
) -> AsyncIterator[Gateway]:
    """A gateway that waits for pictures for no longer than it takes to look once or twice."""
    async with running(valkey_url, f"file://{tmp_path}/images", wait_timeout_s=0.1) as gateway:
        yield gateway


async def only_job(gateway: Gateway) -> dict[str, Any]:
    """The one job that there is, once it is there."""
    [job_id] = await jobs(gateway, 1)
    return await gateway.read(job_id)


async def jobs(gateway: Gateway, count: int, **params: str) -> list[str]:
    """The ids of so many jobs, once they are there."""
    for _ in range(1_000):
        if len(ids := await gateway.list_ids(**params)) == count:
            return ids
        await asyncio.sleep(0.01)
    raise AssertionError(f"{ids} are not {count} jobs")


async def ended(gateway: Gateway, asking: Awaitable[httpx.Response], error: JobError | None) -> httpx.Response:
    """Claim the job that is asked for and end it: with pictures, or with this error."""
    waiting = asyncio.ensure_future(asking)
    await only_job(gateway)
    claim = await gateway.claim()
    if error is None:
        await gateway.complete(claim, *(b"picture %d" % i for i in range(claim.job.n)))
    else:
        await gateway.worker.fail(claim, error)
    return await waiting


@ALL
async def test_the_answer_is_the_picture(gateway: Gateway, path: str, body: dict[str, Any]) -> None:
    answer = await ended(gateway, gateway.client.post(path, json=body), None)
    assert answer.status_code == 200
    job = await only_job(gateway)
    if path == HF[0]:
        assert (answer.content, answer.headers["content-type"]) == (b"picture 0", "image/png")
        assert (answer.headers["x-job-id"], answer.headers["x-seed"]) == (job["id"], str(job["parameters"]["seed"]))
    elif path == OPENAI[0]:
        [image] = answer.json()["data"]
        assert image == {
            "url": job["data"][0]["url"],
            "b64_json": base64.b64encode(b"picture 0").decode(),
            "seed": job["parameters"]["seed"],
        }
        assert (answer.json()["id"], answer.json()["created"]) == (job["id"], job["created"])
    else:
        assert answer.json()["images"] == [base64.b64encode(b"picture 0").decode()]
        assert json.loads(answer.json()["info"])["job_id"] == job["id"]


@ALL
@pytest.mark.parametrize(
    ("retryable", "status", "header"), [(False, 500, {"x-should-retry": "false"}), (True, 503, {"retry-after": "1"})]
)
async def test_a_failed_job_is_an_error_with_its_own_code(
    gateway: Gateway, path: str, body: dict[str, Any], retryable: bool, status: int, header: dict[str, str]
) -> None:
    error = JobError(code=ErrorCode.OUT_OF_MEMORY, message="The image does not fit.", retryable=retryable)
    waiting = asyncio.ensure_future(gateway.client.post(path, json=body))
    await only_job(gateway)
    claim = await gateway.claim()
    for attempt in range(3 if retryable else 1):
        if attempt:
            [claim] = await _claim_again(gateway, attempt)
        await gateway.worker.fail(claim, error, retry_after_s=0)
    answer = await waiting
    problem = check_error(answer)
    assert (answer.status_code, problem["code"], problem["detail"]) == (status, "out_of_memory", error.message)
    assert answer.headers.items() >= header.items()
    assert ("x-should-retry" in answer.headers) is not retryable


@ALL
async def test_a_job_that_is_canceled_is_a_conflict(gateway: Gateway, path: str, body: dict[str, Any]) -> None:
    waiting = asyncio.ensure_future(gateway.client.post(path, json=body))
    job = await only_job(gateway)
    await gateway.client.post(f"/v1/images/{job['id']}/cancel")
    answer = await waiting
    assert (answer.status_code, check_error(answer)["code"]) == (409, "image_canceled")
    assert answer.headers["x-should-retry"] == "false"


@ALL
async def test_a_job_that_is_deleted_is_not_there(gateway: Gateway, path: str, body: dict[str, Any]) -> None:
    waiting = asyncio.ensure_future(gateway.client.post(path, json=body))
    job = await only_job(gateway)
    # At once: were it canceled first, as by DELETE, its end would be seen before it is gone.
    await gateway.redis.delete(f"{PREFIX}job:{job['id']}")
    answer = await waiting
    assert (answer.status_code, check_error(answer)["code"]) == (404, "image_not_found")


@ALL
async def test_nobody_is_waited_for_for_ever(impatient: Gateway, path: str, body: dict[str, Any]) -> None:
    answer = await impatient.client.post(path, json=body)
    assert (answer.status_code, check_error(answer)["code"]) == (504, "wait_timeout")
    assert answer.headers["x-should-retry"] == "false"
    assert (await only_job(impatient))["status"] == "canceled"


@ALL
async def test_whoever_named_his_request_may_wait_again(impatient: Gateway, path: str, body: dict[str, Any]) -> None:
    for _ in range(2):
        answer = await impatient.client.post(path, json=body, headers={"Idempotency-Key": "1"})
        problem = check_error(answer)
        assert (answer.status_code, problem["code"]) == (504, "wait_timeout")
        assert "goes on" in problem["detail"]
        assert "x-should-retry" not in answer.headers
        assert (await only_job(impatient))["status"] == "queued"


@ALL
@pytest.mark.parametrize("key", [None, "1"])
async def test_whoever_leaves_takes_the_job_along_but_not_with_a_key(
    gateway: Gateway, path: str, body: dict[str, Any], key: str | None
) -> None:
    # This client leaves by being canceled; tests/clients has those that close a connection.
    headers = {} if key is None else {"Idempotency-Key": key}
    waiting = asyncio.ensure_future(gateway.client.post(path, json=body, headers=headers))
    await only_job(gateway)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert (await only_job(gateway))["status"] == ("canceled" if key is None else "queued")


@ALL
async def test_a_picture_that_is_gone(gateway: Gateway, path: str, body: dict[str, Any]) -> None:
    waiting = asyncio.ensure_future(gateway.client.post(path, json=body))
    await only_job(gateway)
    await gateway.complete(await gateway.claim())
    answer = await waiting
    assert (answer.status_code, check_error(answer)["code"]) == (410, "image_gone")


async def test_interrupt_leaves_the_jobs_of_other_apis_alone(gateway: Gateway) -> None:
    native = await gateway.submit()
    waiting = asyncio.ensure_future(gateway.client.post(A1111[0], json=A1111[1]))
    await jobs(gateway, 2)
    assert (await gateway.client.post("/sdapi/v1/interrupt")).status_code == 200
    assert (await waiting).status_code == 409
    assert (await gateway.read(native["id"]))["status"] == "queued"


async def test_progress_looks_at_the_newest_jobs_only(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.api.a1111._PAGE", 1)
    for api in ("sdapi", "sdapi", "native", "native"):
        await gateway.submit(metadata={"api": api})
    assert (await gateway.client.post("/sdapi/v1/interrupt")).status_code == 200
    assert len(await gateway.list_ids(status="queued")) == 4, "two pages hold other jobs"
    await gateway.submit(metadata={"api": "sdapi"})
    assert (await gateway.client.post("/sdapi/v1/interrupt")).status_code == 200
    assert len(await gateway.list_ids(status="canceled")) == 1


async def test_null_is_what_is_left_out(impatient: Gateway) -> None:
    path, body = A1111
    nulls = dict.fromkeys(("negative_prompt", "seed", "batch_size", "n_iter", "send_images", "steps", "enable_hr"))
    assert (await impatient.client.post(path, json=nulls | body)).status_code == 504
    assert (await only_job(impatient))["parameters"]["n"] == 1
    answer = await impatient.client.post(path, json={"prompt": "a ring", "override_settings": None})
    assert answer.status_code == 504


async def test_full_quality_of_a_png_is_no_wish(impatient: Gateway) -> None:
    path, body = OPENAI
    for output_format, quality, status in (
        (None, 100, 504),
        ("png", 100, 504),
        ("jpeg", 100, 504),
        ("png", 90, 422),
    ):
        fields = {"output_format": output_format, "output_compression": quality}
        assert (await impatient.client.post(path, json=body | fields)).status_code == status, fields


async def test_a_chosen_model_is_the_tenants_on_every_gateway(gateway: Gateway, valkey_url: str) -> None:
    chosen = {"sd_model_checkpoint": "tiny-sd3"}
    assert (await gateway.client.post("/sdapi/v1/options", json=chosen)).status_code == 200
    async with running(valkey_url) as other:
        assert (await other.client.get("/sdapi/v1/options")).json() == chosen
    async with running(valkey_url, models=("tiny-flux-dev",)) as without:
        shown = (await without.client.get("/sdapi/v1/options")).json()
        assert shown == {"sd_model_checkpoint": "tiny-flux-dev"}, "one that it does not have cannot be drawn with"


async def test_a_stream_spreads_previews_over_the_steps_and_says_what_went_wrong(gateway: Gateway) -> None:
    path, body = OPENAI
    waiting = asyncio.ensure_future(gateway.client.post(path, json={**body, "stream": True, "partial_images": 1}))
    job = await only_job(gateway)
    claim = await gateway.claim()
    store = gateway.services.store
    for step, preview in ((4, b"too early"), (10, b"half way"), (15, b"one too many")):
        await store.put(preview_path(job["id"], 0), preview)
        await gateway.worker.progress([(claim, Progress(stage=Stage.DENOISE, step=step, total_steps=20))])
        await asyncio.sleep(0.25)
    await gateway.fail(claim)
    answer = await waiting
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-cache", "no")
    events = _events(answer.text)
    assert [name for name, _ in events] == ["image_generation.partial_image", "error"]
    assert base64.b64decode(events[0][1]["b64_json"]) == b"half way"
    assert (events[0][1]["partial_image_index"], events[0][1]["output_format"]) == (0, "jpeg")
    assert (events[1][1]["error"]["code"], events[1][1]["status"]) == ("invalid_output", 500)


async def test_accepted_jobs_are_counted_by_api(gateway: Gateway) -> None:
    for path, body in (OPENAI, HF, A1111):
        waiting = asyncio.ensure_future(gateway.client.post(path, json=body))
        [job_id] = await jobs(gateway, 1, status="queued")
        await gateway.client.post(f"/v1/images/{job_id}/cancel")
        await waiting
    scraped = (await gateway.client.get("/metrics")).text
    for api in ("openai", "hf", "sdapi"):
        assert f'darkroom_jobs_submitted_total{{api="{api}",model="tiny-sd3"}} 1.0' in scraped


async def _claim_again(gateway: Gateway, attempt: int) -> list[Any]:
    while True:
        await gateway.worker.tick()
        if claims := await gateway.worker.claim("worker-1", f"token-{attempt}", ["tiny-sd3"], 1):
            return claims
        await asyncio.sleep(0.01)


def _events(text: str) -> list[tuple[str, dict[str, Any]]]:
    blocks = [block.split("\n") for block in text.strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]
