"""A server that restarts, hangs, fills up, changes its role or is a cluster."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from app.jobs.errors import QueueUnavailableError, StorageFullError
from app.jobs.queue import LEASE_S, Claim, JobQueue, Verdict
from app.jobs.schema import JobState
from app.jobs.scripts import connect
from tests.integration.queue_lab import (
    FINAL,
    LANE,
    PROGRESS,
    RESULT,
    RETRYABLE,
    WORKER,
    claim_one,
    keyspace,
    numbered,
    pass_time,
    submit,
    until,
)
from tests.integration.servers import Server, serving


@asynccontextmanager
async def joined(server: Server) -> AsyncIterator[tuple[JobQueue, Redis]]:
    client = connect(server.url)
    yield JobQueue(client), client
    await client.aclose()


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Server]:
    with serving("--enable-protected-configs", "yes") as server:
        yield server


@pytest.fixture
async def own(shared_server: Server) -> AsyncIterator[tuple[JobQueue, Redis]]:
    """A server that no other module shares, empty."""
    async with joined(shared_server) as (queue, client):
        await client.flushall()
        yield queue, client


async def tell(client: Any, *words: object) -> Any:
    return await client.execute_command(*words)


async def whole_life(queue: JobQueue) -> None:
    """Every script once."""
    await submit(queue, 1, 2, 3, 4, 5)
    first, second, third = await queue.claim("worker-1", "token-1", [LANE], 3)
    assert await queue.renew([first]) == [Verdict.OK]
    assert await queue.progress([(first, PROGRESS)]) == [Verdict.OK]
    assert await queue.complete(first, RESULT) is Verdict.OK
    assert await queue.fail(second, RETRYABLE) is Verdict.OK
    assert await queue.release([third]) == [Verdict.OK]
    await queue.cancel("default", numbered(4).id)
    await queue.tick()
    await queue.heartbeat(WORKER, forget_after_s=60)
    page = await queue.page("default", limit=10)
    assert [record.state for record in page.records] == [
        JobState.QUEUED,
        JobState.CANCELED,
        JobState.QUEUED,
        JobState.DELAYED,
        JobState.COMPLETED,
    ]
    stats = await queue.stats()
    assert (stats.lanes[LANE].queued, stats.in_progress, stats.delayed, stats.workers) == (2, 0, 1, (WORKER,))


async def test_scripts_that_the_server_forgot_are_loaded_again(own: tuple[JobQueue, Redis]) -> None:
    queue, client = own
    await whole_life(queue)
    await client.flushall()
    await client.script_flush()
    await whole_life(queue)


async def test_lines_cut_between_two_calls_are_not_noticed(own: tuple[JobQueue, Redis], shared_server: Server) -> None:
    queue, _ = own
    await submit(queue, 1)
    async with joined(shared_server) as (_, scissors):
        for number in range(5):
            await asyncio.gather(*(queue.read("default", numbered(1).id) for _ in range(5)))  # several idle lines
            assert await scissors.client_kill_filter(_type="normal", skipme=True) >= 5
            await queue.release([await claim_one(queue, f"token-{number}")])


async def test_a_server_killed_and_started_again_goes_on_where_it_was() -> None:
    with serving("--appendonly", "yes", "--appendfsync", "always") as server:
        async with joined(server) as (queue, client):
            await submit(queue, 1, 2)
            claim = await claim_one(queue)
            before = await keyspace(client)
            server.kill()
            asked_at_s = time.monotonic()
            for call in (queue.renew([claim]), queue.submit(numbered(3)), queue.ping(), queue.stats()):
                with pytest.raises(QueueUnavailableError):
                    await call
            assert time.monotonic() - asked_at_s < 4
            server.start()
            assert await keyspace(client) == before
            assert await queue.complete(claim, RESULT) is Verdict.OK
            assert (await claim_one(queue, "token-2")).job == numbered(2)


async def test_a_server_that_loads_is_away_until_it_has_loaded() -> None:
    with serving() as server:
        async with joined(server) as (queue, client):
            await submit(queue, *range(300))
            await client.save()
            server.kill()
            slow = ("--key-load-delay", "4000", "--loading-process-events-interval-bytes", "1024")
            server.start(*slow, wait=False)
            with pytest.raises(QueueUnavailableError, match="loading"):
                await queue.submit(numbered(301))
            with pytest.raises(QueueUnavailableError, match="loading"):
                await queue.ping()

            async def loaded() -> bool:
                try:
                    await queue.ping()
                except QueueUnavailableError:
                    return False
                return True

            await until(loaded)
            assert (await queue.stats()).lanes[LANE].queued == 300


async def test_a_server_that_hangs_is_given_up_and_missed_nothing(
    own: tuple[JobQueue, Redis], shared_server: Server
) -> None:
    queue, _ = own
    await submit(queue, 1)
    async with joined(shared_server) as (impatient, client):
        settings = client.connection_pool.connection_kwargs
        assert 3 * settings["socket_timeout"] <= LEASE_S / 2
        settings["socket_timeout"] = 0.2
        await impatient.ping()  # hangs once on a line that is open, and twice on new ones
        with shared_server.frozen():
            asked_at_s = time.monotonic()
            with pytest.raises(QueueUnavailableError):
                await submit(impatient, 2)
            assert time.monotonic() - asked_at_s < 2
    await submit(queue, 2)
    assert (await queue.stats()).lanes[LANE].queued == 2


async def prepare(queue: JobQueue) -> tuple[Claim, ...]:
    await submit(queue, *range(1, 11))
    return tuple(await queue.claim("worker-1", "token-1", [LANE], 8))


async def test_a_full_server_refuses_new_jobs_and_lets_the_others_end(own: tuple[JobQueue, Redis]) -> None:
    queue, client = own
    claims = await prepare(queue)
    await queue.fail(claims[5], RETRYABLE)
    await pass_time(client, 5)
    await client.config_set("maxmemory-policy", "noeviction")
    await client.config_set("maxmemory", (await client.info("memory"))["used_memory"] // 2)
    try:
        await client.script_flush()
        with pytest.raises(StorageFullError):
            await submit(queue, 11)
        assert await queue.claim("worker-2", "token-2", [LANE], 1) != []
        assert await queue.renew(claims[:1]) == [Verdict.OK]
        assert await queue.progress([(claims[0], PROGRESS)]) == [Verdict.OK]
        assert await queue.complete(claims[0], RESULT) is Verdict.OK
        assert await queue.fail(claims[1], FINAL) is Verdict.OK
        assert await queue.fail(claims[2], RETRYABLE) is Verdict.OK
        assert await queue.release(claims[3:4]) == [Verdict.OK]
        await queue.cancel("default", claims[4].job.id)
        await queue.cancel("default", numbered(10).id)
        assert await queue.renew(claims[4:5]) == [Verdict.CANCEL]
        assert (await queue.tick()).retried == 1
        await queue.heartbeat(WORKER, forget_after_s=60)
        assert (await queue.stats()).workers == (WORKER,)
        assert (await queue.read("default", claims[0].job.id)).result == RESULT
        assert len((await queue.page("default", limit=10)).records) == 10
        with pytest.raises(StorageFullError):
            await submit(queue, 11)
    finally:
        await client.config_set("maxmemory", 0)
    await submit(queue, 11)


@asynccontextmanager
async def replica(client: Redis, shared_server: Server) -> AsyncIterator[None]:
    await tell(client, "REPLICAOF", "127.0.0.1", "1")
    yield
    await tell(client, "REPLICAOF", "NO", "ONE")


@asynccontextmanager
async def replica_without_primary(client: Redis, shared_server: Server) -> AsyncIterator[None]:
    await client.config_set("replica-serve-stale-data", "no")
    async with replica(client, shared_server):
        yield


@asynccontextmanager
async def too_few_replicas(client: Redis, shared_server: Server) -> AsyncIterator[None]:
    await client.config_set("min-replicas-to-write", 1)
    yield
    await client.config_set("min-replicas-to-write", 0)


@asynccontextmanager
async def failing_disk(client: Redis, shared_server: Server) -> AsyncIterator[None]:
    await client.config_set("dir", "/proc")
    await client.config_set("save", "3600 1")
    await client.bgsave()

    async def failed() -> bool:
        return bool((await client.info("persistence"))["rdb_last_bgsave_status"] == "err")

    await until(failed)
    yield
    await client.config_set("save", "")
    await client.config_set("dir", str(shared_server.folder))


@asynccontextmanager
async def busy(client: Redis, shared_server: Server) -> AsyncIterator[None]:
    await client.config_set("busy-reply-threshold", 1)
    async with joined(shared_server) as (_, other):
        hanging = asyncio.create_task(tell(other, "EVAL", "while true do end", 0))
        await asyncio.sleep(0.05)
        yield
        await client.script_kill()
        await asyncio.gather(hanging, return_exceptions=True)


@pytest.mark.parametrize("trouble", [replica, replica_without_primary, too_few_replicas, failing_disk, busy])
async def test_a_server_that_refuses_to_write_is_as_good_as_away(
    own: tuple[JobQueue, Redis], shared_server: Server, trouble: Callable[..., AbstractAsyncContextManager[None]]
) -> None:
    queue, client = own
    claims = await prepare(queue)
    async with trouble(client, shared_server):
        outcomes = await asyncio.gather(
            queue.submit(numbered(11)),
            queue.claim("worker-1", "token-2", [LANE], 1),
            queue.renew(claims),
            queue.progress([(claims[0], PROGRESS)]),
            queue.complete(claims[0], RESULT),
            queue.fail(claims[1], FINAL),
            queue.release(claims[2:3]),
            queue.cancel("default", claims[3].job.id),
            queue.heartbeat(WORKER, forget_after_s=60),
            queue.tick(),
            return_exceptions=True,
        )
    assert [type(outcome) for outcome in outcomes] == [QueueUnavailableError] * len(outcomes)
    assert (await queue.stats()).in_progress == 8
    assert await queue.complete(claims[0], RESULT) is Verdict.OK


async def test_a_cluster_runs_every_script_since_all_keys_share_a_slot() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        bus_port = probe.getsockname()[1]
    with serving("--cluster-enabled", "yes", "--bind", "127.0.0.1", "--cluster-port", str(bus_port)) as server:
        async with joined(server) as (queue, client):
            with pytest.raises(QueueUnavailableError):
                await submit(queue, 1)
            await tell(client, "CLUSTER", "ADDSLOTSRANGE", 0, 16383)

            async def formed() -> bool:
                return "cluster_state:ok" in str(await tell(client, "CLUSTER", "INFO"))

            await until(formed)
            await whole_life(queue)
            slots = {await tell(client, "CLUSTER", "KEYSLOT", name) for name in await client.keys("*")}
            assert len(slots) == 1


async def test_a_job_is_accepted_when_the_disk_has_it() -> None:
    with serving("--appendonly", "yes", "--appendfsync", "everysec") as server:
        async with connect(server.url) as client:
            queue = JobQueue(client, wait_for_disk=True)
            await submit(queue, 1, 2)
            assert await client.waitaof(1, 0, 1) == [1, 0]  # at once, for nothing is left to be written
            assert (await queue.stats()).lanes[LANE].queued == 2


async def test_a_server_without_a_disk_is_not_waited_for_in_vain(valkey_url: str) -> None:
    async with connect(valkey_url) as client:
        with pytest.raises(QueueUnavailableError, match="appendonly is disabled"):
            await submit(JobQueue(client, wait_for_disk=True), 1)
