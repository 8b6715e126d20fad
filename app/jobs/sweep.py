"""Bytes in the store that nobody needs any more: found by asking the queue about each job that has some.

The record is written before the bytes, at every claim, and the store is read before the queue is asked. So what the
queue does not know by then will never be known: no clock is needed to tell old from new.
"""

import asyncio
from collections import defaultdict

from app.jobs.store import CHECKPOINTS, PREVIEWS, RESULTS, ImageStore, checkpoint_path, preview_path
from app.jobs.upkeep import Hold, Holder, Upkeep

_FOLDERS = (RESULTS, CHECKPOINTS, PREVIEWS)


async def sweep(store: ImageStore, upkeep: Upkeep) -> int:
    """Delete orphaned files, and say how many. Raises StoreError or QueueUnavailableError."""
    swept = 0
    for folder in _FOLDERS:
        async for paths in store.pages(folder):
            by_job = defaultdict(list)
            for path in paths:
                by_job[job_of(path)].append(path)
            holders = await upkeep.holders(list(by_job))
            orphans = [
                path
                for holder, of_job in zip(holders, by_job.values(), strict=True)
                for path in of_job
                if not is_needed(path, holder)
            ]
            await store.delete(orphans)
            swept += len(orphans)
            await asyncio.sleep(0)
    return swept


async def delete_pictures(store: ImageStore, job_id: str) -> None:
    """Delete all that was drawn for a job. Raises StoreError."""
    async for paths in store.pages(f"{RESULTS}/{job_id}"):
        await store.delete(paths)


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


def is_needed(path: str, holder: Holder | None) -> bool:
    """Whether a job still needs what is at a path; holder: the job as the queue knows it."""
    if holder is None:
        return False
    if not path.startswith(RESULTS + "/"):
        return holder.hold is Hold.OPEN
    is_last_claims = path.split("/")[2:3] == [holder.token]
    return holder.hold is not Hold.ENDED and is_last_claims and not holder.expired
