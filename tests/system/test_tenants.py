"""One tenant floods the queue, another has a job now and then: through real workers, the second hardly waits longer."""

import asyncio
import logging
from pathlib import Path

import pytest

from app.jobs.queue import JobQueue
from app.jobs.schema import JobRecord, JobState
from tests.conftest import make_job
from tests.system.processes import NULL_MODEL, null_worker

log = logging.getLogger(__name__)

_TRICKLE_JOBS = 15
_EVERY_S = 0.3
_FLOOD_JOBS = 400


async def submit(queue: JobQueue, tenant: str, number: int) -> str:
    job = make_job(
        id=f"img_{tenant:0>16}{number:016}",
        tenant=tenant,
        model=NULL_MODEL,
        num_inference_steps=10,
        seed=number,
        width=64,
        height=64,
    )
    return await queue.submit(job, cost_s=0.1)


async def ended(queue: JobQueue, tenant: str, job_id: str) -> JobRecord:
    async with asyncio.timeout(60):
        while (record := await queue.read(tenant, job_id)).state is not JobState.COMPLETED:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return record


async def trickle_waits_s(queue: JobQueue, first: int) -> list[float]:
    """Submit a job now and then, whatever became of those before; give how long each waited, by the server's clock."""
    job_ids = []
    for number in range(first, first + _TRICKLE_JOBS):
        job_ids.append(await submit(queue, "trickle", number))
        await asyncio.sleep(_EVERY_S)
    records = [await ended(queue, "trickle", job_id) for job_id in job_ids]
    return [((record.started_ms or 0) - record.submitted_ms) / 1000 for record in records]


async def service_s(queue: JobQueue) -> list[float]:
    page = await queue.page("flood", limit=100, states=[JobState.COMPLETED])
    return [((record.finished_ms or 0) - (record.started_ms or 0)) / 1000 for record in page.records]


@pytest.mark.timeout(400)
async def test_a_trickle_hardly_waits_longer_beside_a_flood(tmp_path: Path, queue: JobQueue, valkey_url: str) -> None:
    store_url = (tmp_path / "images").as_uri()
    # One job at a time, so that a wait for the one in hand is the whole of a service time.
    with null_worker(tmp_path, valkey_url, store_url, DARKROOM_MAX_IMAGES="1"):
        alone_s = await trickle_waits_s(queue, 0)
        for number in range(_FLOOD_JOBS):
            await submit(queue, "flood", number)
        flooded_s = await trickle_waits_s(queue, _TRICKLE_JOBS)
        services_s = await service_s(queue)
        stats = await queue.stats()
    assert stats.lanes[NULL_MODEL].queued > 0, "the flood was over too soon"
    # With so few, the 99th percentile is the longest.
    log.info("alone %.3f s, flooded %.3f s; one job %.3f s", max(alone_s), max(flooded_s), max(services_s))
    assert max(flooded_s) <= 2 * max(alone_s) + max(services_s)
