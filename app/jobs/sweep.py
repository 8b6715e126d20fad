"""Bytes in the store that nobody needs any more: found by asking the queue about each job that has some.

The record is written before the bytes, at every claim, and the store is read before the queue is asked. So no clock is
needed to tell what a job that the queue knows still needs.

Of a job that it does not know, pictures are kept as long as any are: the queue may have been set back to a backup. And
in a store that belongs to another queue, or a queue that lost all it knew, nothing is swept: each store holds the name
of its queue.
"""

import asyncio
import time
from collections import defaultdict

import structlog

from app.jobs.store import (
    CHECKPOINTS,
    PREVIEWS,
    RESULTS,
    ImageNotStoredError,
    ImageStore,
    Stored,
    checkpoint_path,
    preview_path,
)
from app.jobs.upkeep import Hold, Holder, Upkeep

log = structlog.get_logger()

_FOLDERS = (RESULTS, CHECKPOINTS, PREVIEWS)
_OWNER = "queue"


async def sweep(store: ImageStore, upkeep: Upkeep, forget_after_s: float | None) -> int:
    """Delete orphaned files, and say how many. Raises StoreError or QueueUnavailableError.

    forget_after_s: pictures of jobs that the queue does not know are kept so long; None: for ever.
    """
    if not await _owns(store, upkeep):
        log.error("store_of_another_queue", hint="nothing is swept; see app/jobs/sweep.py")
        return 0
    old_s = float("-inf") if forget_after_s is None else time.time() - forget_after_s
    swept = 0
    for folder in _FOLDERS:
        async for page in store.pages(folder):
            by_job = defaultdict(list)
            for stored in page:
                by_job[job_of(stored.path)].append(stored)
            holders = await upkeep.holders(list(by_job))
            orphans = [
                stored.path
                for holder, of_job in zip(holders, by_job.values(), strict=True)
                for stored in of_job
                if not is_needed(stored, holder, old_s)
            ]
            await store.delete(orphans)
            swept += len(orphans)
            await asyncio.sleep(0)
    return swept


async def delete_pictures(store: ImageStore, job_id: str) -> None:
    """Delete all that was drawn for a job. Raises StoreError."""
    async for page in store.pages(f"{RESULTS}/{job_id}"):
        await store.delete(stored.path for stored in page)


async def delete_files(store: ImageStore, job_id: str, images: int) -> None:
    """Delete every file of a job, unfinished ones too. Raises StoreError."""
    await delete_pictures(store, job_id)
    await store.delete(path(job_id, index) for index in range(images) for path in (checkpoint_path, preview_path))


def job_of(path: str) -> str:
    """The job whose bytes are at a path.

    >>> job_of("results/img_1/token/0.png"), job_of("checkpoints/img_1-0.safetensors")
    ('img_1', 'img_1')
    """
    folder, _, rest = path.partition("/")
    return rest.partition("/")[0] if folder == RESULTS else rest.rpartition("-")[0]


def is_needed(stored: Stored, holder: Holder | None, old_s: float) -> bool:
    """Whether a job still needs what is stored; holder: the job as the queue knows it."""
    is_picture = stored.path.startswith(RESULTS + "/")
    if holder is None:
        return is_picture and stored.modified_s > old_s
    if not is_picture:
        return holder.hold is Hold.OPEN
    is_last_claims = stored.path.split("/")[2:3] == [holder.token]
    return holder.hold is not Hold.ENDED and is_last_claims and not holder.expired


async def _owns(store: ImageStore, upkeep: Upkeep) -> bool:
    """Whether the store is this queue's. One without a name is taken, if it is empty or the queue knows some of it."""
    identity = (await upkeep.identity()).encode()
    try:
        return await store.get(_OWNER) == identity
    except ImageNotStoredError:
        pass
    found = [stored for folder in _FOLDERS async for page in store.pages(folder) for stored in page]
    known = await upkeep.holders(list({job_of(stored.path) for stored in found}))
    if found and not any(known):
        return False
    await store.put(_OWNER, identity)
    return True
