"""Prefer: wait, entity tags, and what is left of a client that hangs up."""

import asyncio
import json
from typing import Any

import pytest
from redis.asyncio import Redis

from app.api.etag import is_known
from app.api.prefer import wait_s
from app.jobs.schema import Progress, Stage
from tests.app.gateway import Gateway, check_error, view
from tests.integration.queue_lab import until

LONG = {"prefer": "wait=30"}


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("wait=5", 5),
        ("WAIT=5", 5),
        ("wait = 5", 5),
        ('wait="5"', 5),
        ("wait=0", 0),
        ("wait=007", 7),
        ("wait=61", 60),
        ("wait=" + "9" * 5_000, 60),
        ("respond-async, wait=5", 5),
        ("respond-async,wait=5;foo=bar; x", 5),
        ('return="a, wait=9; \\" b", wait=5', 5),
        ("wait=5, wait=9", 5),
        (",, wait=5 ,", 5),
        ("wait=5 ,", 5),
        ("wait", None),
        ("wait=", None),
        ("wait=-1", None),
        ("wait=5.5", None),
        ("wait=soon, wait=5", None),
        ("wait=5 seconds", None),
        ("wait==5", None),
        ("wait=٣", None),
        ("x=wait=5", None),
        ("await=5", None),
        ("", None),
    ],
)
def test_the_prefer_header(header: str, seconds: int | None) -> None:
    assert wait_s(header) == seconds


@pytest.mark.parametrize(
    ("header", "known"),
    [
        ('"a"', True),
        ('W/"a"', True),
        ('"b" , W/"a"', True),
        ("*", True),
        (" * ", True),
        ('"ab"', False),
        ('"b, a"', False),
        ("a", False),
        ('"*"', False),
        ("", False),
    ],
)
def test_the_if_none_match_header(header: str, known: bool) -> None:
    assert is_known('"a"', header) is known
    assert is_known('W/"a"', header) is known


async def waiters(gateway: Gateway, count: int) -> None:
    async def are_there() -> bool:
        return gateway.services.changes.waiters == count

    await until(are_there)


async def test_a_post_that_waits_answers_the_finished_job(gateway: Gateway) -> None:
    fields = {"prompt": "a ring", "model": "tiny-sd3"}
    asking = asyncio.create_task(gateway.client.post("/v1/images", json=fields, headers=LONG))
    await waiters(gateway, 1)
    await gateway.complete(await gateway.claim(), b"picture")
    response = await asking
    job = view(response)
    assert (response.status_code, job["status"]) == (200, "completed")
    assert response.headers["preference-applied"] == "wait=30"
    assert response.headers["location"] == job["urls"]["self"]
    assert "retry-after" not in response.headers
    await waiters(gateway, 0)


async def test_a_post_answers_when_the_time_is_up(gateway: Gateway) -> None:
    for wait in (0, 1):
        fields = {"prompt": "a ring", "model": "tiny-sd3"}
        response = await gateway.client.post("/v1/images", json=fields, headers={"prefer": f"wait={wait}"})
        assert (response.status_code, view(response)["status"]) == (202, "queued")
        assert response.headers["preference-applied"] == f"wait={wait}"
        assert response.headers["retry-after"] == "1"
        assert (await gateway.read(view(response)["id"]))["status"] == "queued"


async def test_a_get_waits_for_another_status_and_no_less(gateway: Gateway) -> None:
    job_id = (await gateway.submit())["id"]
    claim = None
    for status in ("in_progress", "completed"):
        asking = asyncio.create_task(gateway.client.get(f"/v1/images/{job_id}", headers=LONG))
        await waiters(gateway, 1)
        if claim is None:
            await asyncio.sleep(0.1)
            claim = await gateway.claim()
        else:
            await gateway.worker.progress([(claim, Progress(stage=Stage.DENOISE, step=1, total_steps=28))])
            await asyncio.sleep(1.2)  # a change, and a second look
            assert not asking.done()
            await gateway.complete(claim, b"picture")
        response = await asking
        assert view(response)["status"] == status
        assert response.headers["preference-applied"] == "wait=30"
    # It has ended: there is nothing to wait for.
    assert view(await gateway.client.get(f"/v1/images/{job_id}", headers=LONG))["status"] == "completed"


async def test_a_get_answers_what_is_when_the_time_is_up(gateway: Gateway) -> None:
    job_id = (await gateway.submit())["id"]
    response = await gateway.client.get(f"/v1/images/{job_id}", headers={"prefer": "wait=1"})
    assert (response.status_code, view(response)["status"]) == (200, "queued")


async def test_a_preference_that_is_none_is_ignored(gateway: Gateway) -> None:
    job_id = (await gateway.submit())["id"]
    for header in ("wait=forever", "wait", "respond-async"):
        response = await gateway.client.get(f"/v1/images/{job_id}", headers={"prefer": header})
        assert "preference-applied" not in response.headers


async def test_who_waits_for_a_job_that_is_deleted_is_told(gateway: Gateway) -> None:
    job_id = (await gateway.submit())["id"]
    asking = asyncio.create_task(gateway.client.get(f"/v1/images/{job_id}", headers=LONG))
    await waiters(gateway, 1)
    await gateway.services.queue.cancel("default", job_id)
    await gateway.services.upkeep.purge("default", [job_id])
    assert (await asking).status_code in (200, 404)  # canceled, or gone
    assert check_error(await gateway.client.get(f"/v1/images/{job_id}", headers=LONG))["code"] == "image_not_found"


async def hang_up(gateway: Gateway, method: str, path: str, body: bytes = b"", **headers: str) -> None:
    """Ask, wait until the gateway waits, and leave."""
    gone = asyncio.Event()
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict[str, Any]:
        if (message := next(messages, None)) is not None:
            return message
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        pass

    names = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "server": ("gateway", 80),
        "client": ("127.0.0.1", 1),
        "headers": [(b"host", b"gateway"), *((name.encode(), value.encode()) for name, value in names.items())],
    }
    asking = asyncio.create_task(gateway.app(scope, receive, send))  # type: ignore[arg-type]
    await waiters(gateway, 1)
    gone.set()
    await asking
    await waiters(gateway, 0)


async def test_a_client_that_leaves_a_get_leaves_nothing_behind(gateway: Gateway) -> None:
    job_id = (await gateway.submit())["id"]
    await hang_up(gateway, "GET", f"/v1/images/{job_id}", prefer="wait=30")
    assert (await gateway.read(job_id))["status"] == "queued"


@pytest.mark.parametrize(("key", "status"), [(None, "canceled"), ("key-1", "queued")])
async def test_a_client_that_leaves_a_post_takes_its_job_with_it_unless_it_may_ask_again(
    gateway: Gateway, key: str | None, status: str
) -> None:
    body = json.dumps({"prompt": "a ring", "model": "tiny-sd3"}).encode()
    await hang_up(gateway, "POST", "/v1/images", body, prefer="wait=30", **({"idempotency_key": key} if key else {}))
    [job_id] = await gateway.list_ids()
    assert (await gateway.read(job_id))["status"] == status


async def test_a_job_that_the_client_has_is_not_sent_again(gateway: Gateway, valkey: Redis) -> None:
    job_id = (await gateway.submit(num_inference_steps=20))["id"]
    url = f"/v1/images/{job_id}"
    tags: list[str] = []

    async def changed() -> None:
        """The tag is a new one, and then known."""
        response = await gateway.client.get(url, headers={"if-none-match": ", ".join(tags)})
        assert response.status_code == 200
        tags.append(response.headers["etag"])
        for header in (tags[-1], f'"other", {tags[-1]}', "*"):
            again = await gateway.client.get(url, headers={"if-none-match": header})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == tags[-1]
            assert again.headers["cache-control"] == "private, no-cache"

    await changed()
    claim = await gateway.claim()
    await changed()
    for step in (1, 2):
        await gateway.worker.progress([(claim, Progress(stage=Stage.DENOISE, step=step, total_steps=20))])
        await changed()
    await gateway.complete(claim, b"picture")
    await changed()
    assert len(set(tags)) == 5


async def test_an_estimate_alone_is_no_news(gateway: Gateway) -> None:
    await gateway.submit()
    job_id = (await gateway.submit())["id"]
    first = await gateway.client.get(f"/v1/images/{job_id}")
    eta_s = view(first)["queue"]["eta_seconds"]

    async def is_another() -> bool:
        return bool((await gateway.read(job_id))["queue"]["eta_seconds"] != eta_s)

    await gateway.claim()  # the pace is measured from now on
    await gateway.submit()
    other = await gateway.client.get(f"/v1/images/{job_id}")
    await until(is_another)
    later = await gateway.client.get(f"/v1/images/{job_id}")
    assert view(later)["queue"]["eta_seconds"] != eta_s
    assert later.headers["etag"] == other.headers["etag"]
