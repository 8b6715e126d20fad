"""Server-sent events of a job: what comes, what does not come twice, and what many streams cost."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import httpx
import pytest
import uvicorn
from redis.asyncio import Redis

from app.api import events as module
from app.api.event_stream import EventKind, Told, news
from app.jobs.schema import ErrorCode, JobError, Progress, Stage
from app.jobs.store import preview_path
from tests.app.gateway import Gateway, check_error
from tests.conftest import make_job
from tests.integration.queue_lab import until

STEPS = 28


@dataclass(frozen=True, slots=True)
class Event:
    kind: str
    id: str
    data: dict[str, Any]

    @property
    def said(self) -> object:
        """What tells it from others of its kind."""
        match self.kind:
            case "status":
                return self.data["status"]
            case "progress":
                return self.data["step"]
            case _:
                return self.data["index"], self.data["step"]


class Stream:
    """A client that reads one stream."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def block(self) -> list[str]:
        """Lines up to the next empty one; none at the end."""
        lines: list[str] = []
        async with asyncio.timeout(10):
            async for line in self._lines:
                if not line:
                    return lines
                lines.append(line)
        return []

    async def next(self) -> Event | None:
        lines = await self.block()
        while lines == [": ping"]:
            lines = await self.block()
        if not lines:
            return None
        fields = dict(line.split(": ", 1) for line in lines)
        assert set(fields) == {"event", "data", "id"}
        return Event(fields["event"], fields["id"], json.loads(fields["data"]))

    async def expect(self, *expected: tuple[str, object]) -> Event:
        last = None
        for kind, said in expected:
            event = last = await self.next()
            assert event is not None
            assert (event.kind, event.said) == (kind, said)
        assert last is not None
        return last

    async def ends(self) -> None:
        assert await self.next() is None


@dataclass(frozen=True, slots=True)
class Lab:
    """The gateway behind a real server: httpx's ASGI transport gives an answer only once it is whole."""

    gateway: Gateway
    client: httpx.AsyncClient

    @asynccontextmanager
    async def stream(self, job_id: str, last_event_id: str | None = None) -> AsyncIterator[Stream]:
        headers = {} if last_event_id is None else {"last-event-id": last_event_id}
        async with self.client.stream("GET", f"/v1/images/{job_id}/events", headers=headers) as response:
            assert response.status_code == 200
            assert response.headers["content-type"].partition(";")[0] == "text/event-stream"
            yield Stream(response)

    async def waiters(self, count: int) -> None:
        async def are_there() -> bool:
            return self.gateway.services.changes.waiters == count

        await until(are_there)


@pytest.fixture
async def lab(gateway: Gateway) -> AsyncIterator[Lab]:
    config = uvicorn.Config(gateway.app, port=0, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    loop = asyncio.create_task(server.main_loop())
    port = server.servers[0].sockets[0].getsockname()[1]
    limits = httpx.Limits(max_connections=600)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20, limits=limits) as client:
        yield Lab(gateway, client)
    server.should_exit = True
    await loop
    await server.shutdown()


def at(step: int, *previews: int, stage: Stage = Stage.DENOISE) -> Progress:
    return Progress(stage=stage, step=step, total_steps=STEPS, previews=previews)


async def test_a_job_from_its_queue_to_its_end(lab: Lab) -> None:
    gateway = lab.gateway
    job_id = (await gateway.submit())["id"]
    async with lab.stream(job_id) as stream:
        queued = await stream.expect(("status", "queued"))
        assert queued.data["id"] == job_id
        claim = await gateway.claim()
        await stream.expect(("status", "in_progress"))
        await gateway.worker.progress([(claim, at(3))])
        progress = await stream.expect(("progress", 3))
        assert progress.data.keys() == {"percent", "stage", "step", "total_steps", "eta_seconds"}
        assert progress.data["eta_seconds"] > 0
        await gateway.services.store.put(preview_path(job_id, 0), b"preview")
        await gateway.worker.progress([(claim, at(9, 8))])
        preview = await stream.expect(("preview", (0, 8)))
        assert preview.data["url"].endswith(f"/v1/images/{job_id}/preview?index=0&step=8")
        assert (await lab.client.get(preview.data["url"])).content == b"preview"
        await stream.expect(("progress", 9))
        await gateway.complete(claim, b"picture")
        done = await stream.expect(("status", "completed"))
        shown = (await lab.client.get(f"/v1/images/{job_id}")).json()
        assert done.data == shown
        await stream.ends()
    await lab.waiters(0)


async def test_who_comes_back_is_told_what_is_new_and_nothing_twice(lab: Lab) -> None:
    job_id = (await lab.gateway.submit())["id"]
    claim = await lab.gateway.claim()
    await lab.gateway.worker.progress([(claim, at(3, 2))])
    expected: list[tuple[str, object]] = [("status", "in_progress"), ("preview", (0, 2)), ("progress", 3)]
    async with lab.stream(job_id) as stream:
        ids = [(await stream.expect(each)).id for each in expected]
    assert len(set(ids)) == 3
    for known in range(2):
        async with lab.stream(job_id, ids[known]) as stream:
            await stream.expect(*expected[known + 1 :])
            await lab.waiters(1)
        await lab.waiters(0)
    await lab.gateway.worker.progress([(claim, at(5, 2))])
    async with lab.stream(job_id, ids[2]) as stream:
        await stream.expect(("progress", 5))
        await lab.gateway.complete(claim, b"picture")
        end = await stream.expect(("status", "completed"))
        await stream.ends()
    # EventSource comes back after every end, until it is told not to.
    response = await lab.client.get(f"/v1/images/{job_id}/events", headers={"last-event-id": end.id})
    assert (response.status_code, response.content) == (204, b"")
    async with lab.stream(job_id, ids[0]) as stream:
        await stream.expect(("status", "completed"))
        await stream.ends()


async def test_a_job_that_goes_back_to_the_queue_says_so_and_starts_anew(lab: Lab) -> None:
    job_id = (await lab.gateway.submit())["id"]
    claim = await lab.gateway.claim()
    await lab.gateway.worker.progress([(claim, at(3, 2))])
    async with lab.stream(job_id) as stream:
        await stream.expect(("status", "in_progress"), ("preview", (0, 2)), ("progress", 3))
        await lab.gateway.worker.release([claim])
        await stream.expect(("status", "queued"))
        claim = await lab.gateway.claim("token-2")
        await stream.expect(("status", "in_progress"))
        await lab.gateway.worker.progress([(claim, at(3, 2))])
        await stream.expect(("preview", (0, 2)), ("progress", 3))
        error = JobError(code=ErrorCode.INVALID_OUTPUT, message="It is black.", retryable=False)
        await lab.gateway.worker.fail(claim, error)
        failed = await stream.expect(("status", "failed"))
        assert failed.data["error"]["code"] == "invalid_output"
        await stream.ends()


async def test_progress_comes_at_most_four_times_a_second_and_the_last_of_it_always(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PROGRESS_EVERY_S", 0.6)
    job_id = (await lab.gateway.submit())["id"]
    claim = await lab.gateway.claim()
    async with lab.stream(job_id) as stream:
        await stream.expect(("status", "in_progress"))
        for step in range(1, 11):
            await lab.gateway.worker.progress([(claim, at(step))])
            await asyncio.sleep(0.01)
        steps: list[int] = []
        while not steps or steps[-1] != 10:
            event = await stream.next()
            assert event is not None
            steps.append(event.data["step"])
        assert len(steps) <= 3


async def test_a_quiet_stream_is_kept_alive(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEEP_ALIVE_EVERY_S", 0.1)
    job_id = (await lab.gateway.submit())["id"]
    async with lab.stream(job_id) as stream:
        assert (await stream.block())[0] == "event: status"
        assert [await stream.block() for _ in range(3)] == [[": ping"]] * 3


async def test_a_stream_of_a_job_that_is_deleted_ends(lab: Lab) -> None:
    job_id = (await lab.gateway.submit())["id"]
    async with lab.stream(job_id) as stream:
        await stream.expect(("status", "queued"))
        assert (await lab.client.delete(f"/v1/images/{job_id}")).status_code == 204
        event = await stream.next()
        assert event is None or event.said == "canceled"
    check_error(await lab.gateway.client.get(f"/v1/images/{job_id}/events"))


async def test_500_open_streams_share_one_line_and_their_reads_and_leave_nothing_behind(
    lab: Lab, valkey: Redis
) -> None:
    job_id = (await lab.gateway.submit())["id"]

    async def follow() -> list[str]:
        # httpx takes seconds for so many connections.
        reader, writer = await asyncio.open_connection(lab.client.base_url.host, lab.client.base_url.port)
        writer.write(f"GET /v1/images/{job_id}/events HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n".encode())
        answer = (await reader.read()).decode()
        writer.close()
        return re.findall('"status":"(\\w+)"', answer)

    following = [asyncio.create_task(follow()) for _ in range(500)]
    await lab.waiters(500)
    [(_, lines)] = await valkey.pubsub_numsub("darkroom:{q}:changed")
    assert lines == 1
    before = (await valkey.info("commandstats"))["cmdstat_hgetall"]["calls"]
    claim = await lab.gateway.claim()
    await lab.gateway.complete(claim, b"picture")
    said = await asyncio.gather(*following)
    assert {tuple(each) for each in said} <= {("queued", "in_progress", "completed"), ("queued", "completed")}
    reads = (await valkey.info("commandstats"))["cmdstat_hgetall"]["calls"] - before
    assert reads < 30
    await lab.waiters(0)


async def test_a_client_that_hangs_up_leaves_nothing_behind(lab: Lab) -> None:
    job_id = (await lab.gateway.submit())["id"]
    async with lab.stream(job_id) as stream:
        await stream.expect(("status", "queued"))
        await lab.waiters(1)
    await lab.waiters(0)
    assert (await lab.gateway.read(job_id))["status"] == "queued"


@pytest.mark.parametrize("event_id", ["x", "", "9-9-9", "3-1", "1-1-" + "9" * 5_000, "2-1-3-x", "٣-1-1", "1-1-1-"])
def test_an_id_that_is_none_of_ours_is_no_id(event_id: str) -> None:
    assert Told.parse(event_id) == Told()


def test_an_id_is_what_its_reader_knows() -> None:
    for told in (Told(), Told(1), Told(2, 3, 14, (12, 0)), Told(5, 7, 999_999, tuple(range(100)))):
        assert Told.parse(str(told)) == told


async def test_another_tenants_stream_is_not_there(gateway: Gateway) -> None:
    theirs = make_job(tenant="other")
    await gateway.worker.submit(theirs)
    body = check_error(await gateway.client.get(f"/v1/images/{theirs.id}/events"))
    assert (body["status"], body["code"]) == (404, "image_not_found")


async def test_ids_grow_as_the_job_does(gateway: Gateway) -> None:
    job_id = (await gateway.submit(n=2))["id"]
    told, ids = Told(), []

    async def look() -> list[EventKind]:
        nonlocal told
        kinds = []
        for each in news(await gateway.worker.read("default", job_id), told):
            told = each.told
            ids.append([int(part) for part in re.split("-", str(told))])
            kinds.append(each.kind)
        return kinds

    assert await look() == [EventKind.STATUS]
    claim = await gateway.claim()
    assert await look() == [EventKind.STATUS]
    for progress in (at(0, stage=Stage.TEXT_ENCODE), at(2), at(4, 2, 0), at(8, 2, 4), at(9, 5, 6), at(56, 5, 6)):
        await gateway.worker.progress([(claim, progress)])
        assert EventKind.PROGRESS in await look()
        assert await look() == []
    await gateway.complete(claim, b"one", b"two")
    assert await look() == [EventKind.STATUS]
    assert all(sum(earlier) < sum(later) for earlier, later in pairwise(ids))
