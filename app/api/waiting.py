"""Waiting until a job has ended."""

import asyncio
import time
from collections.abc import AsyncIterator

from app.api.deps import Services
from app.api.records import find_record
from app.jobs.schema import TERMINAL_STATES, JobRecord

_LOOK_EVERY_S = 0.1


async def wait_for_end(services: Services, tenant: str, job_id: str, timeout_s: float) -> JobRecord:
    """Give the job's record once it has ended, or as it is when the time is up. Raises NotFoundError."""
    async for record in looks(services, tenant, job_id, timeout_s):
        last = record
    return last


async def looks(services: Services, tenant: str, job_id: str, timeout_s: float) -> AsyncIterator[JobRecord]:
    """Give the record again and again, at least once; the last time when it has ended or the time is up."""
    until_s = time.monotonic() + timeout_s
    while True:
        record = await find_record(services, tenant, job_id)
        yield record
        if record.state in TERMINAL_STATES or time.monotonic() >= until_s:
            return
        await asyncio.sleep(_LOOK_EVERY_S)
