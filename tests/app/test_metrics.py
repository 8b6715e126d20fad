"""What the gateway counts, under labels that no client can multiply."""

import asyncio

from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from app.jobs.queue import JobQueue
from app.jobs.schema import WorkerInfo
from tests.app.gateway import Gateway, running

Sample = tuple[str, tuple[tuple[str, str], ...]]


async def scrape(gateway: Gateway) -> dict[Sample, float]:
    response = await gateway.client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def labels(samples: dict[Sample, float], name: str) -> list[dict[str, str]]:
    return [dict(pairs) for sample, pairs in samples if sample == name]


def requests(samples: dict[Sample, float], route: str, method: str, code: int) -> float:
    return samples["darkroom_http_requests_total", (("code", str(code)), ("method", method), ("route", route))]


async def test_requests_are_counted_by_route_never_by_id(gateway: Gateway) -> None:
    job_id = (await gateway.submit())["id"]
    await gateway.submit()
    for _ in range(3):
        await gateway.read(job_id)
    await gateway.client.get("/v1/images/img_nowhere")
    await gateway.client.get(f"/v1/images/{job_id}/content?index=0")
    await gateway.client.post(f"/v1/images/{job_id}/cancel")
    await gateway.post({"prompt": ""})
    await gateway.client.post("/v1/images", content=b"{}", headers={"content-length": "1000000"})
    await scrape(gateway)
    samples = await scrape(gateway)
    assert requests(samples, "/v1/images", "POST", 202) == 2
    assert requests(samples, "/v1/images", "POST", 422) == 1
    assert requests(samples, "/v1/images/{job_id}", "GET", 200) == 3
    assert requests(samples, "/v1/images/{job_id}", "GET", 404) == 1
    assert requests(samples, "/v1/images/{job_id}/content", "GET", 202) == 1
    assert requests(samples, "/v1/images/{job_id}/cancel", "POST", 200) == 1
    assert requests(samples, "/metrics", "GET", 200) == 1
    assert requests(samples, "unmatched", "POST", 413) == 1
    assert samples["darkroom_http_request_duration_seconds_count", (("route", "/v1/images/{job_id}"),)] == 4
    assert not any(job_id in value for _, pairs in samples for _, value in pairs)


async def test_no_client_can_multiply_the_series(gateway: Gateway) -> None:
    await gateway.client.request("PUT", "/v1/images")
    before = len(await scrape(gateway))
    for number in range(20):
        await gateway.client.request(f"METHOD{number}", "/v1/images")
        await gateway.client.request(f"METHOD{number}", f"/nothing/{number}")
        await gateway.client.get(f"/nothing/{number}")
        await gateway.client.get(f"/v1/images/{number}?q={number}", headers={"host": f"host-{number}"})
        await gateway.post({"prompt": "a ring", "model": f"model-{number}"})
    samples = await scrape(gateway)
    assert len(samples) < before + 100
    assert requests(samples, "/v1/images", "other", 405) == 20
    assert requests(samples, "unmatched", "other", 404) == 20
    assert requests(samples, "unmatched", "GET", 404) == 20
    for pairs in labels(samples, "darkroom_http_requests_total"):
        assert pairs["route"] in {"unmatched", "/v1/images", "/v1/images/{job_id}", "/metrics"}
        assert pairs["method"] in {"GET", "POST", "PUT", "other"}
        assert pairs["code"].isdecimal()


async def test_the_queue_is_shown_by_model(gateway: Gateway) -> None:
    await gateway.submit()
    await gateway.submit()
    await gateway.submit(model="tiny-flux-dev")
    await gateway.claim()
    worker = WorkerInfo(
        id="worker-1", version="1", models=("tiny-sd3", "a-model-of-its-own"), device="cpu", jobs_in_progress=1
    )
    await gateway.worker.heartbeat(worker, forget_after_s=60)
    samples = await scrape(gateway)

    def of(name: str, model: str) -> float:
        return samples[name, (("model", model),)]

    def waiting(model: str, priority: str) -> float:
        return samples["darkroom_queue_depth", (("model", model), ("priority", priority))]

    submitted = [(pairs["model"], pairs["api"]) for pairs in labels(samples, "darkroom_jobs_submitted_total")]
    assert sorted(submitted) == [("tiny-flux-dev", "native"), ("tiny-sd3", "native")]
    assert samples["darkroom_jobs_submitted_total", (("api", "native"), ("model", "tiny-sd3"))] == 2
    assert waiting("tiny-sd3", "normal") == waiting("tiny-flux-dev", "normal") == 1
    assert waiting("flux-dev", "normal") == waiting("tiny-sd3", "high") == 0
    assert of("darkroom_queue_work_seconds", "tiny-sd3") > of("darkroom_queue_work_seconds", "flux-dev") == 0
    assert of("darkroom_queue_oldest_seconds", "flux-dev") == 0
    assert of("darkroom_queue_oldest_seconds", "tiny-sd3") >= 0
    assert of("darkroom_workers_live", "tiny-sd3") == 1
    assert of("darkroom_workers_live", "flux-dev") == 0
    assert of("darkroom_jobs_in_progress", "tiny-sd3") == samples["darkroom_queue_up", ()] == 1
    assert of("darkroom_jobs_in_progress", "flux-dev") == 0
    assert samples["darkroom_dead_jobs", ()] == 0
    models = {pairs["model"] for pairs in labels(samples, "darkroom_workers_live")}
    assert models == set(gateway.services.catalog)


async def test_a_refused_job_is_not_counted_as_submitted(gateway: Gateway) -> None:
    await gateway.post({"prompt": ""})
    assert labels(await scrape(gateway), "darkroom_jobs_submitted_total") == []


async def test_a_cancellation_is_counted_where_it_happens(gateway: Gateway) -> None:
    """Here if the job waits, by its worker if one holds it; once, however often it is asked for."""
    waiting, held = (await gateway.submit())["id"], (await gateway.submit())["id"]
    await gateway.claim()
    for _ in range(2):
        for job_id in (waiting, held):
            await gateway.client.post(f"/v1/images/{job_id}/cancel")
    assert {(await gateway.read(job_id))["status"] for job_id in (waiting, held)} == {"canceled", "in_progress"}
    pairs = (("code", ""), ("model", "tiny-sd3"), ("status", "canceled"))
    assert (await scrape(gateway))["darkroom_jobs_finished_total", pairs] == 1


async def test_a_job_that_is_given_up_or_interrupted_or_deleted_is_counted_too(
    no_darkroom_environment: None, valkey: Redis, valkey_url: str
) -> None:
    async with running(valkey_url, wait_timeout_s=0.1) as gateway:
        given_up = await gateway.client.post("/v1/images/generations", json={"prompt": "a ring", "model": "tiny-sd3"})
        assert given_up.status_code == 504
        await gateway.submit(metadata={"api": "sdapi"})
        assert (await gateway.client.post("/sdapi/v1/interrupt")).status_code == 200
        job_id = (await gateway.submit())["id"]
        assert (await gateway.client.delete(f"/v1/images/{job_id}")).status_code == 204
        pairs = (("code", ""), ("model", "tiny-sd3"), ("status", "canceled"))
        assert (await scrape(gateway))["darkroom_jobs_finished_total", pairs] == 3


async def test_jobs_taken_back_from_dead_workers_are_counted(gateway: Gateway, valkey: Redis) -> None:
    await gateway.submit()
    assert await JobQueue(valkey, lease_s=0.001).claim("worker-1", "token", ["tiny-sd3"], 1)
    for _ in range(100):
        samples = await scrape(gateway)
        if samples["darkroom_jobs_reclaimed_total", ()]:
            break
        await asyncio.sleep(0.1)
    assert samples["darkroom_jobs_reclaimed_total", ()] == 1


async def test_every_series_has_the_projects_prefix(gateway: Gateway) -> None:
    assert all(name.startswith("darkroom_") for name, _ in await scrape(gateway))
