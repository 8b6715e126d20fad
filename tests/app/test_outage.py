"""The queue's server is away, full or stuck: what is answered, and that it heals without a restart."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from redis.asyncio import Redis

from app.jobs.queue import JobQueue
from tests.app.gateway import Gateway, check_error, documented_statuses, running, view
from tests.integration.servers import Server, serving

JOB = "/v1/images/img_" + "0" * 32
NEEDS_QUEUE = [
    ("POST", "/v1/images"),
    ("GET", "/v1/images"),
    ("GET", JOB),
    ("DELETE", JOB),
    ("GET", f"{JOB}/events"),
    ("GET", f"{JOB}/content"),
    ("GET", f"{JOB}/preview"),
    ("POST", f"{JOB}/cancel"),
    ("GET", "/v1/models"),
    ("GET", "/readyz"),
]


@pytest.fixture
def server() -> Iterator[Server]:
    """A queue server of this test's own, to break."""
    with serving() as server:
        yield server


@pytest.fixture
async def gateway(no_darkroom_environment: None, server: Server) -> AsyncIterator[Gateway]:
    async with running(server.url) as gateway:
        yield gateway


async def ask(gateway: Gateway, method: str, path: str) -> httpx.Response:
    if method == "POST" and path == "/v1/images":
        return await gateway.post({"prompt": "a ring", "model": "tiny-sd3"})
    return await gateway.client.request(method, path)


async def ask_everything(gateway: Gateway) -> list[httpx.Response]:
    return await asyncio.gather(*(ask(gateway, method, path) for method, path in NEEDS_QUEUE))


def test_every_route_that_documents_503_is_tried() -> None:
    for method, path in NEEDS_QUEUE:
        assert 503 in (documented_statuses(method, path) or ())
    for path in ("/livez", "/metrics"):
        assert 503 not in (documented_statuses("GET", path) or ())


async def test_it_says_so_and_heals_by_itself(gateway: Gateway, server: Server) -> None:
    before = [response.status_code for response in await ask_everything(gateway)]
    assert before == [202, 200, 404, 404, 404, 404, 404, 404, 200, 200]
    for _ in range(2):
        server.kill()
        for response in await ask_everything(gateway):
            body = check_error(response)
            assert (body["status"], body["code"]) == (503, "queue_unavailable")
            assert body["detail"] == "The queue cannot be reached now; try again."
            assert response.headers["retry-after"] == "1"
        assert (await gateway.client.get("/livez")).status_code == 200
        metrics = await gateway.client.get("/metrics")
        assert metrics.status_code == 200
        assert "\ndarkroom_queue_up 0.0\n" in metrics.text

        server.start()
        assert [response.status_code for response in await ask_everything(gateway)] == before
        assert "\ndarkroom_queue_up 1.0\n" in (await gateway.client.get("/metrics")).text


async def test_a_bad_request_is_bad_whether_or_not_the_queue_is_there(gateway: Gateway, server: Server) -> None:
    await gateway.client.get("/v1/images")  # that nobody needs a key is remembered for some seconds
    server.kill()
    assert (await gateway.post({"prompt": ""})).status_code == 422
    assert (await gateway.post({"prompt": "a ring", "model": "nothing"})).status_code == 404
    assert (await gateway.client.get("/nothing")).status_code == 404
    assert (await gateway.client.get("/v1/images?limit=0")).status_code == 422


async def test_a_gateway_may_start_before_its_queue(no_darkroom_environment: None, server: Server) -> None:
    server.kill()
    async with running(server.url) as gateway:
        assert (await gateway.client.get("/readyz")).status_code == 503
        assert (await gateway.client.get("/livez")).status_code == 200
        server.start()
        assert (await gateway.client.get("/readyz")).status_code == 200
        await gateway.submit()


async def check_that_it_ticks(gateway: Gateway, redis: Redis) -> None:
    """Wait until the gateway takes back a dead worker's job."""
    job_id = (await gateway.submit())["id"]
    await JobQueue(redis, lease_s=0.001).claim("worker-1", "token", ["tiny-sd3"], 1)
    for _ in range(250):
        if (await gateway.read(job_id))["status"] == "queued":
            return
        await asyncio.sleep(0.02)
    pytest.fail("nobody took it back")


async def test_ticking_goes_on_after_an_outage(no_darkroom_environment: None, server: Server) -> None:
    server.kill()
    async with running(server.url) as gateway:
        await asyncio.sleep(0.4)  # the first tick and its retries
        server.start()
        async with Redis.from_url(server.url, decode_responses=True) as redis:
            await check_that_it_ticks(gateway, redis)


async def test_ticking_goes_on_after_an_error_that_nobody_thought_of(
    no_darkroom_environment: None, server: Server
) -> None:
    async with Redis.from_url(server.url, decode_responses=True) as redis:
        await redis.acl_setuser("default", enabled=True, commands=["-evalsha"])
        async with running(server.url) as gateway:
            await asyncio.sleep(0.2)
            await redis.acl_setuser("default", enabled=True, commands=["+evalsha"])
            await check_that_it_ticks(gateway, redis)


async def test_a_full_server_takes_no_new_jobs_and_serves_the_others(gateway: Gateway, server: Server) -> None:
    held, queued = (await gateway.submit())["id"], (await gateway.submit())["id"]
    claim = await gateway.claim()
    async with Redis.from_url(server.url) as redis:
        await redis.config_set("maxmemory", 1)
        response = await gateway.post({"prompt": "a ring", "model": "tiny-sd3"})
        body = check_error(response)
        assert (body["status"], body["code"]) == (503, "storage_full")
        assert body["detail"] == "The queue's memory is full; try again later."
        assert response.headers["retry-after"] == "1"

        await gateway.complete(claim, b"picture")
        assert (await gateway.read(held))["status"] == "completed"
        assert (await gateway.client.get(f"/v1/images/{held}/content")).content == b"picture"
        assert view(await gateway.client.post(f"/v1/images/{queued}/cancel"))["status"] == "canceled"
        assert await gateway.list_ids() == [queued, held]
        assert (await gateway.client.get("/readyz")).status_code == 200
        assert "\ndarkroom_queue_up 1.0\n" in (await gateway.client.get("/metrics")).text

        await redis.config_set("maxmemory", 0)
    await gateway.submit()
