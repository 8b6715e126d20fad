"""A crowd that waits costs nothing once it has its answer, or has gone; `tests.benchmarks.waiting` has a larger one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn

from app.jobs.schema import JobRecord, JobState
from tests.app.gateway import Gateway
from tests.benchmarks.connection import Connection, request
from tests.benchmarks.crowd import Crowd

POLLERS, STREAMS = 200, 50
FREED_WITHIN_S = 30.0


@asynccontextmanager
async def listening(gateway: Gateway) -> AsyncIterator[tuple[str, uvicorn.Server]]:
    """The gateway on a socket, in this event loop."""
    config = uvicorn.Config(
        gateway.app, host="127.0.0.1", port=0, lifespan="off", access_log=False, log_level="warning"
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())  # without its signal handlers
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", server
    finally:
        server.should_exit = True
        await serving


@pytest.mark.parametrize("leaves", [True, False])
async def test_who_waited_leaves_nothing_behind(gateway: Gateway, leaves: bool) -> None:
    async with listening(gateway) as (url, server):
        with await Connection.open(url) as connection:
            await connection.ask(request("GET", "/v1/images"), 200)
        await freed(gateway, server)
        tasks = len(asyncio.all_tasks())
        crowd = Crowd(url, model="tiny-sd3", jobs=20, pollers=POLLERS, streams=STREAMS, wait_s=60)
        async with crowd:
            assert len(server.server_state.connections) == POLLERS + STREAMS
            async with asyncio.timeout(FREED_WITHIN_S):
                while gateway.services.changes.waiters < POLLERS + STREAMS:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            assert crowd.waiting == POLLERS + STREAMS
            if not leaves:
                async with asyncio.timeout(FREED_WITHIN_S):
                    for job_id in [record.job.id for record in await all_records(gateway)]:
                        await gateway.services.queue.cancel("default", job_id)
                    while crowd.waiting:  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
        await freed(gateway, server)
        assert len(asyncio.all_tasks()) < tasks + 10  # the gateway's own come and go
        # Who gives up on a drawing gives up on its job; who follows one may come again.
        states = [record.state for record in await all_records(gateway)]
        assert states.count(JobState.CANCELED) == (STREAMS // 2 if leaves else STREAMS // 2 + 20)
        assert not [error for error in crowd.errors if "image_canceled" not in error]


async def freed(gateway: Gateway, server: uvicorn.Server) -> None:
    """Wait until nobody is connected, and nothing runs for anybody."""
    async with asyncio.timeout(FREED_WITHIN_S):
        while server.server_state.connections or server.server_state.tasks or gateway.services.changes.waiters:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def all_records(gateway: Gateway) -> list[JobRecord]:
    records: list[JobRecord] = []
    after: str | None = ""
    while after is not None:
        page = await gateway.services.queue.page("default", limit=100, after=after)
        records += page.records
        after = page.next_after
    return records
