"""Worker and gateway behind a line that is cut, hangs or crawls for longer than a lease: they recover unaided."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from app.jobs.queue import JobQueue
from app.jobs.schema import ImageJob, JobRecord, JobState
from app.jobs.scripts import connect
from app.jobs.store import ImageStore, open_store
from tests.app import gateway
from tests.app.gateway import check_error
from tests.benchmarks.null_model import NullPipeline
from tests.integration.queue_lab import until
from tests.integration.worker_lab import OPTIONS, Running, in_state, numbered, running, wait_until
from tests.system.proxy import Mode, Proxy, proxied

pytestmark = pytest.mark.system

# As in earnest three tries at a line that hangs are well within a lease, but both are shorter.
LEASE_S, TIMEOUT_S = 3.0, 0.4
STEPS = 4_000  # the better part of a second
TROUBLE = [mode for mode in Mode if mode is not Mode.PASS]


@asynccontextmanager
async def behind(proxy: Proxy, lease_s: float, timeout_s: float) -> AsyncIterator[JobQueue]:
    client = connect(proxy.url)
    client.connection_pool.connection_kwargs["socket_timeout"] = timeout_s
    try:
        yield JobQueue(client, lease_s=lease_s)
    finally:
        await client.aclose()


@asynccontextmanager
async def worker_behind(proxy: Proxy, store: ImageStore) -> AsyncIterator[Running]:
    # A reply takes a second where each way takes half of one.
    lease_s, timeout_s = (6.0, 2.0) if proxy.mode is Mode.DELAY else (LEASE_S, TIMEOUT_S)
    async with (
        behind(proxy, lease_s, timeout_s) as queue,
        running(queue, store, NullPipeline(), replace(OPTIONS, lease_s=lease_s)) as worker,
    ):
        yield worker


class Ledger:
    """What was accepted, and what was seen of it: a job that has ended never looks different again."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self.jobs: list[ImageJob] = []
        self._ends: dict[str, JobRecord] = {}

    async def submit(self, count: int, steps: int = STEPS) -> list[ImageJob]:
        jobs = [numbered(len(self.jobs) + number, num_inference_steps=steps) for number in range(count)]
        self.jobs += jobs
        for job in jobs:
            await self._queue.submit(job)
        return jobs

    async def look(self) -> bool:
        """Whether all have completed."""
        for job in self.jobs:
            record = await self._queue.read(job.tenant, job.id)
            if job.id in self._ends:
                assert record == self._ends[job.id]
            elif record.state is JobState.COMPLETED:
                self._ends[job.id] = record
            else:
                assert record.state in (JobState.QUEUED, JobState.IN_PROGRESS), record
        return len(self._ends) == len(self.jobs)

    async def complete(self, store: ImageStore) -> None:
        await until(self.look, within_s=30)
        for record in self._ends.values():
            assert record.result is not None
            assert len(await store.get(record.result.images[0].path)) == record.result.images[0].size_bytes


async def ticking(queue: JobQueue) -> None:
    """As a gateway elsewhere does, whose line is good."""
    while True:
        await queue.tick()
        await asyncio.sleep(0.2)


@pytest.mark.parametrize("mode", TROUBLE)
async def test_a_worker_recovers_unaided_and_completes_every_job(
    queue: JobQueue, valkey_url: str, store: ImageStore, mode: Mode
) -> None:
    ledger = Ledger(queue)
    tick = asyncio.create_task(ticking(queue))
    try:
        async with proxied(valkey_url) as proxy:
            if mode is Mode.DELAY:
                proxy.set(mode)
            async with worker_behind(proxy, store) as worker:
                first = await ledger.submit(4)
                await wait_until(queue, first[0], in_state(JobState.IN_PROGRESS))
                proxy.set(mode)
                for _ in range(10):
                    await ledger.submit(1)
                    await ledger.look()
                    await asyncio.sleep((LEASE_S + 1.5) / 10)
                assert mode in (Mode.DELAY, Mode.DEAF) or (await queue.stats()).in_progress == 0
                proxy.set(Mode.PASS)
                await ledger.submit(4)
                await ledger.complete(store)
                assert not worker.task.done()
    finally:
        tick.cancel()


async def test_a_listener_hears_of_work_again_after_its_line_died_in_silence(
    queue: JobQueue, valkey_url: str, store: ImageStore
) -> None:
    """A claim that comes by no wake comes by the clock, which is turned off here."""
    async with proxied(valkey_url) as proxy:
        with pytest.MonkeyPatch.context() as patch:
            async with worker_behind(proxy, store):
                [warm] = await Ledger(queue).submit(1, steps=1)
                await wait_until(queue, warm, in_state(JobState.COMPLETED))
                proxy.set(Mode.HALF_OPEN)
                await asyncio.sleep(0.5)
                proxy.set(Mode.PASS)
                await asyncio.sleep(2 * LEASE_S)
                patch.setattr("workers.worker._CLAIM_FALLBACK_S", 1_000.0)
                await asyncio.sleep(1.5)  # the last wait by the clock
                job = numbered(2, num_inference_steps=1)
                await queue.submit(job)
                await wait_until(queue, job, in_state(JobState.COMPLETED))


@pytest.mark.parametrize("mode", [Mode.CUT, Mode.HALF_OPEN, Mode.DEAF, Mode.THROTTLE])
async def test_a_gateway_says_that_the_queue_is_away_and_serves_again(
    no_darkroom_environment: None, valkey: Redis, valkey_url: str, mode: Mode
) -> None:
    async with proxied(valkey_url) as proxy, gateway.running(proxy.url) as served:
        kwargs = served.services.queue._redis.connection_pool.connection_kwargs
        kwargs["socket_timeout"] = TIMEOUT_S
        await served.submit()
        proxy.set(mode)
        for _ in range(3):
            for answer in (
                await served.post({"prompt": "a ring", "model": "tiny-sd3"}),
                await served.client.get("/v1/images"),
            ):
                assert check_error(answer)["code"] == "queue_unavailable"
        proxy.set(Mode.PASS)
        job = await served.submit()
        assert (await served.read(job["id"]))["status"] == "queued"


async def test_a_gateway_serves_over_a_line_with_half_a_second_each_way(
    no_darkroom_environment: None, valkey: Redis, valkey_url: str
) -> None:
    async with proxied(valkey_url) as proxy:
        proxy.set(Mode.DELAY)
        async with gateway.running(proxy.url) as served:
            job = await served.submit()
            assert (await served.read(job["id"]))["status"] == "queued"


@pytest.fixture
def store() -> ImageStore:
    return open_store("memory://")
