"""Every call that JobQueue offers, for tests of what befalls calls on their way: a new method needs a row here."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from app.jobs.queue import Claim, JobQueue
from app.jobs.schema import ImageJob, JobRecord
from tests.integration.queue_lab import (
    FINAL,
    LANE,
    PROGRESS,
    RESULT,
    RETRYABLE,
    WORKER,
    fences,
    numbered,
)

Call = Callable[[JobQueue, list[Claim]], Awaitable[Any]]


async def _claim(queue: JobQueue, claims: list[Claim]) -> list[tuple[ImageJob, str]]:
    return fences(await queue.claim("worker-2", "token-2", [LANE], 1))


async def _claim_and_complete(queue: JobQueue, claims: list[Claim]) -> None:
    for claim in await queue.claim("worker-2", "token-2", [LANE], 1):
        await queue.complete(claim, RESULT)


async def _page(queue: JobQueue, claims: list[Claim]) -> list[str]:
    return [record.job.id for record in (await queue.page("default", limit=10)).records]


async def _read(queue: JobQueue, claims: list[Claim]) -> ImageJob:
    return (await queue.read("default", numbered(3).id)).job


async def _read_many(queue: JobQueue, claims: list[Claim]) -> list[ImageJob]:
    records = await queue.read_many("default", [numbered(3).id, numbered(4).id])
    return [record.job for record in records if isinstance(record, JobRecord)]


async def _stats(queue: JobQueue, claims: list[Claim]) -> tuple[int, int]:
    stats = await queue.stats()
    return stats.in_progress, stats.lanes[LANE].queued


async def _tick(queue: JobQueue, claims: list[Claim]) -> None:
    await queue.tick()  # what it moved is told once: a lost reply loses it


async def _cancel(queue: JobQueue, job_id: str) -> None:
    await queue.cancel("default", job_id)  # whether this call ended it is told once, too


async def _wakes(queue: JobQueue, claims: list[Claim]) -> str:
    async with queue.wakes() as lanes:
        await queue.release(claims[:1])
        return await asyncio.wait_for(anext(lanes), 1.0)


async def _changes(queue: JobQueue, claims: list[Claim]) -> str:
    async with queue.changes() as ids:
        await queue.release(claims[:1])
        return await asyncio.wait_for(anext(ids), 1.0)


# method, or method: variant -> the call. Jobs 1 and 2 are held by these claims, 3 and 4 wait, the leases of 5 and 6
# have ended.
CALLS: dict[str, Call] = {
    "submit": lambda queue, claims: queue.submit(numbered(7)),
    "submit: to be canceled": lambda queue, claims: queue.submit(numbered(7), cancel_after_s=60),
    "read": _read,
    "read_many": _read_many,
    "page": _page,
    "cancel: queued": lambda queue, claims: _cancel(queue, numbered(3).id),
    "cancel: running": lambda queue, claims: _cancel(queue, numbered(1).id),
    "stats": _stats,
    "claim": _claim,
    "claim: and complete": _claim_and_complete,
    "renew": lambda queue, claims: queue.renew(claims),
    "progress": lambda queue, claims: queue.progress([(claim, PROGRESS) for claim in claims]),
    "complete": lambda queue, claims: queue.complete(claims[0], RESULT),
    "fail": lambda queue, claims: queue.fail(claims[0], FINAL),
    "fail: to retry": lambda queue, claims: queue.fail(claims[0], RETRYABLE, retry_after_s=60),
    "release": lambda queue, claims: queue.release(claims),
    "heartbeat": lambda queue, claims: queue.heartbeat(WORKER, forget_after_s=60),
    "heartbeat: gone": lambda queue, claims: queue.heartbeat(WORKER, forget_after_s=0),
    "wakes": _wakes,
    "changes": _changes,
    "tick": _tick,
    "ping": lambda queue, claims: queue.ping(),
}


def methods() -> set[str]:
    """What JobQueue offers, looked up in the class itself."""
    return {name for name, _ in inspect.getmembers(JobQueue, inspect.isfunction) if not name.startswith("_")}
