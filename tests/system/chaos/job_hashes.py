"""The queue's own records of jobs, read as they lie in Redis (app/jobs/keys.py), past the gateway and the scripts."""

from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import Redis

from app.jobs.keys import PREFIX

JobHash = Mapping[str, str | None]


async def leases(redis: Redis) -> dict[str, float]:
    """Job id -> when its lease ends, in seconds since the epoch."""
    found: Any = await redis.zrange(PREFIX + "lease", 0, -1, withscores=True)
    return {str(job_id): float(ends_ms) / 1000 for job_id, ends_ms in found}


async def job_hashes(redis: Redis, job_ids: Sequence[str], *fields: str) -> list[JobHash]:
    """These fields of each job."""
    asked = redis.pipeline(transaction=False)
    for job_id in job_ids:
        asked.hmget(f"{PREFIX}job:{job_id}", list(fields))
    return [dict(zip(fields, values, strict=True)) for values in await asked.execute()]
