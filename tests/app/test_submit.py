"""Submitting: what is accepted, what it is resolved to, and what the answer says."""

import asyncio
import re
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from app.api.schemas import ALIASES, MAX_DEADLINE_S, MAX_INT
from tests.app.gateway import Gateway, check_error, running, view


async def test_a_prompt_is_enough(gateway: Gateway) -> None:
    response = await gateway.post({"prompt": "a ring"})
    assert response.status_code == 202
    job = view(response)
    assert re.fullmatch(r"img_[0-9a-f]{32}", job["id"])
    assert response.headers["location"] == job["urls"]["self"] == f"http://gateway/v1/images/{job['id']}"
    assert int(response.headers["retry-after"]) >= 1
    assert (job["object"], job["status"], job["model"]) == ("image", "queued", "tiny-flux-schnell")
    assert (job["started_at"], job["completed_at"], job["data"], job["error"]) == (None, None, [], None)
    assert job["progress"].pop("eta_seconds") > 0
    assert job["progress"] == {"percent": 0, "stage": "queued", "step": 0, "total_steps": 4}
    seed = job["parameters"].pop("seed")
    assert 0 <= seed < 2**32
    assert job["parameters"] == {
        "model": "tiny-flux-schnell",
        "prompt": "a ring",
        "negative_prompt": None,
        "width": 128,
        "height": 128,
        "num_inference_steps": 4,
        "guidance_scale": 0.0,
        "true_cfg_scale": 1.0,
        "max_sequence_length": 128,
        "n": 1,
        "output_format": "png",
        "output_compression": None,
        "priority": "normal",
        "deadline_seconds": None,
        "model_revision": None,
        "worker_version": None,
        "largest_batch": None,
    }


async def test_what_is_asked_for_reaches_the_worker_unchanged(gateway: Gateway) -> None:
    asked: dict[str, Any] = {
        "prompt": ' a "ring" \N{RING BUOY}\n',
        "model": "tiny-sd3",
        "negative_prompt": "",
        "width": 64,
        "height": 512,
        "num_inference_steps": 100,
        "guidance_scale": 7,
        "true_cfg_scale": 1.0,
        "max_sequence_length": 256,
        "seed": 7,
        "n": 10,
        "output_format": "webp",
        "output_compression": 0,
        "priority": "high",
        "deadline_seconds": 2.5,
        "metadata": {"k" * 64: "v" * 512} | {str(i): "" for i in range(15)},
    }
    shown = await gateway.submit(**asked)
    assert shown["parameters"] | {"metadata": shown["metadata"]} == shown["parameters"] | asked
    job = (await gateway.claim()).job
    assert job.deadline_s == asked.pop("deadline_seconds")
    assert job.model_dump(mode="json", include=set(asked)) == asked
    assert job.id == shown["id"]
    assert list(job.seeds) == list(range(7, 17))


async def test_two_requests_without_a_seed_draw_different_pictures(gateway: Gateway) -> None:
    seeds = {(await gateway.submit())["parameters"]["seed"] for _ in range(4)}
    assert len(seeds) == 4


@pytest.mark.parametrize(
    ("fields", "resolved"),
    [
        ({"size": "64x512"}, {"width": 64, "height": 512}),
        ({"size": "064X128"}, {"width": 64, "height": 128}),
        ({"image_size": "64x64"}, {"width": 64, "height": 64}),
        ({"steps": 7}, {"num_inference_steps": 7}),
        ({"num_inference_steps": 1}, {"num_inference_steps": 1}),
        ({"guidance": 2}, {"guidance_scale": 2.0}),
        ({"cfg_scale": 0}, {"guidance_scale": 0.0}),
        ({"guidance_scale": 100}, {"guidance_scale": 100.0}),
        ({"num_images": 2}, {"n": 2}),
        ({"num_outputs": 2}, {"n": 2}),
        ({"num_images_per_prompt": 2, "n": 2}, {"n": 2}),
        ({"steps": 7, "num_inference_steps": 7}, {"num_inference_steps": 7}),
        ({"seed": 0}, {"seed": 0}),
        ({"seed": MAX_INT}, {"seed": MAX_INT}),
        ({"seed": MAX_INT - 9, "n": 10}, {"seed": MAX_INT - 9}),
        ({"output_format": "jpeg", "output_compression": 100}, {"output_compression": 100}),
        ({"prompt": "\N{CAT FACE}" * 10_000}, {"prompt": "\N{CAT FACE}" * 10_000}),
        ({"model": "tiny-flux-dev", "true_cfg_scale": 4, "negative_prompt": ""}, {"true_cfg_scale": 4.0}),
        ({"priority": "low", "deadline_seconds": 60}, {"priority": "low", "deadline_seconds": 60.0}),
        ({"priority": "normal", "deadline_seconds": None}, {"priority": "normal", "deadline_seconds": None}),
        ({"deadline_seconds": 5e-324}, {"deadline_seconds": 5e-324}),
        ({"deadline_seconds": MAX_DEADLINE_S}, {"deadline_seconds": 86_400.0}),
        ({"negative_prompt": None, "seed": 1, "size": None}, {"negative_prompt": None, "width": 128}),
    ],
)
async def test_good_requests(gateway: Gateway, fields: dict[str, Any], resolved: dict[str, Any]) -> None:
    parameters = (await gateway.submit(**fields))["parameters"]
    assert parameters == parameters | resolved


def test_every_alias_is_tried_above() -> None:
    assert set(ALIASES) == {
        "steps",
        "guidance",
        "cfg_scale",
        "num_images",
        "num_outputs",
        "num_images_per_prompt",
        "image_size",
    }


async def test_priority_changes_the_line_and_a_deadline_does_not(gateway: Gateway) -> None:
    asked: list[dict[str, Any]] = [{"priority": "low"}, {}, {"deadline_seconds": 0.001}, {"priority": "high"}]
    low, normal, urgent, high = [(await gateway.submit(**fields))["id"] for fields in asked]
    claimed = [(await gateway.claim(f"token-{place}")).job.id for place in range(4)]
    assert claimed == [high, normal, low, urgent]  # low has its share too: first of all to begin


async def test_jobs_of_one_model_stand_in_line(gateway: Gateway) -> None:
    positions = [(await gateway.submit(model=name))["queue"]["position"] for name in ("tiny-sd3", "tiny-sd3")]
    assert positions == [0, 1]
    assert (await gateway.submit(model="tiny-flux-dev"))["queue"]["position"] == 0


async def test_a_full_queue_answers_429_for_its_model_only(
    no_darkroom_environment: None, valkey: Redis, valkey_url: str
) -> None:
    async with running(valkey_url, max_queued=2) as gateway:
        for _ in range(2):
            await gateway.submit()
        response = await gateway.post({"prompt": "a ring", "model": "tiny-sd3"})
        body = check_error(response)
        assert (body["status"], body["code"], body["param"]) == (429, "queue_full", None)
        seconds = int(response.headers["retry-after"])
        assert body["detail"] == f"2 jobs already wait for tiny-sd3; try again in {seconds} s"
        await gateway.submit(model="tiny-flux-dev")
        await gateway.claim()
        await gateway.submit()
        assert len(await gateway.list_ids()) == 4


@pytest.mark.parametrize(
    ("base_url", "self_url"),
    [
        ("https://pictures.example", "https://pictures.example/v1/images/"),
        ("https://example.com/darkroom/", "https://example.com/darkroom/v1/images/"),
    ],
)
async def test_addresses_are_the_public_ones(
    no_darkroom_environment: None, valkey: Redis, valkey_url: str, base_url: str, self_url: str
) -> None:
    async with running(valkey_url, public_base_url=base_url) as gateway:
        response = await gateway.post({"prompt": "a ring"})
        job = view(response)
        url = self_url + job["id"]
        names = ("content", "preview", "events", "cancel")
        assert job["urls"] == {"self": url} | {name: f"{url}/{name}" for name in names}
        assert response.headers["location"] == url


async def test_only_the_models_of_the_settings_are_offered(
    no_darkroom_environment: None, valkey: Redis, valkey_url: str
) -> None:
    async with running(valkey_url, models="tiny-sd3, tiny-flux-dev=/weights") as gateway:
        assert view(await gateway.post({"prompt": "a ring"}))["model"] == "tiny-sd3"
        body = check_error(await gateway.post({"prompt": "a ring", "model": "flux-dev"}))
        assert body["detail"] == "there is no model 'flux-dev' here; known: tiny-sd3, tiny-flux-dev"
        models = view(await gateway.client.get("/v1/models"))["data"]
        assert [model["id"] for model in models] == ["tiny-sd3", "tiny-flux-dev"]


async def test_a_tenant_with_too_many_open_jobs_is_told_when_to_come_back(
    no_darkroom_environment: None, valkey: Redis, valkey_url: str
) -> None:
    async with running(valkey_url, max_open=1) as gateway:
        await gateway.submit(model="tiny-flux-dev")
        response = await gateway.post({"prompt": "a ring", "model": "tiny-sd3"})
        body = check_error(response)
        assert (body["status"], body["code"], body["param"]) == (429, "too_many_jobs", None)
        seconds = int(response.headers["retry-after"])
        assert body["detail"] == f"1 of your jobs are not over yet; try again in {seconds} s"


async def post_named(gateway: Gateway, key: str, **fields: object) -> httpx.Response:
    body = {"prompt": "a ring", "model": "tiny-sd3"} | fields
    return await gateway.client.post("/v1/images", json=body, headers={"Idempotency-Key": key})


async def test_the_same_request_under_the_same_key_is_the_same_job(gateway: Gateway) -> None:
    first = await post_named(gateway, "key-1", steps=4)
    again = await post_named(gateway, "key-1", num_inference_steps=4)
    other = await post_named(gateway, "key-2", steps=4)
    assert (first.status_code, again.status_code, other.status_code) == (202, 202, 202)
    assert first.json() == again.json()
    assert first.json()["id"] != other.json()["id"]
    assert ("Idempotency-Replayed" in first.headers, again.headers["Idempotency-Replayed"]) == (False, "true")
    assert len(await gateway.list_ids()) == 2


async def test_a_key_answers_with_the_job_as_it_is_now(gateway: Gateway) -> None:
    job_id = (await post_named(gateway, "key-1")).json()["id"]
    await gateway.complete(await gateway.claim(), b"picture")
    again = (await post_named(gateway, "key-1")).json()
    assert (again["id"], again["status"]) == (job_id, "completed")


async def test_another_request_under_a_used_key_is_refused(gateway: Gateway) -> None:
    await post_named(gateway, "key-1")
    body = check_error(await post_named(gateway, "key-1", seed=1))
    assert (body["status"], body["code"], body["param"]) == (422, "idempotency_key_reused", "idempotency_key")
    assert len(await gateway.list_ids()) == 1


async def test_a_hundred_posts_at_once_under_one_key_make_one_job(gateway: Gateway) -> None:
    answers = await asyncio.gather(*(post_named(gateway, "key-1") for _ in range(100)))
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(await gateway.list_ids()) == 1


@pytest.mark.parametrize("key", ["", "a b", "caf\xe9", "k" * 256])
async def test_a_key_that_is_no_token_is_refused(gateway: Gateway, key: str) -> None:
    answer = await gateway.client.post(
        "/v1/images", json={"prompt": "a ring"}, headers=[(b"Idempotency-Key", key.encode("latin-1"))]
    )
    body = check_error(answer)
    assert (body["status"], body["code"], body["param"]) == (422, "invalid_idempotency_key", "idempotency_key")
