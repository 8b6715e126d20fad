"""Waiting until a job has ended, or is in another status."""

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import Request

from app.api.deps import Services
from app.api.records import not_found
from app.api.views import STATUS_OF
from app.changes import READ_EVERY_S
from app.errors import ClientLeftError
from app.jobs.errors import JobNotFoundError
from app.jobs.schema import TERMINAL_STATES, JobRecord

T = TypeVar("T")


async def wait_for_end(services: Services, tenant: str, job_id: str, timeout_s: float) -> JobRecord:
    """Give the job's record once it has ended, or as it is when the time is up. Raises NotFoundError."""
    async with aclosing(looks(services, tenant, job_id, timeout_s, every_s=timeout_s)) as records:
        async for record in records:
            last = record
    return last


async def wait_for_change(services: Services, tenant: str, job_id: str, timeout_s: float) -> JobRecord:
    """Give the job's record once its status is another than now, or has ended, or the time is up.

    Raises NotFoundError.
    """
    status = None
    async with aclosing(looks(services, tenant, job_id, timeout_s, every_s=timeout_s)) as records:
        async for record in records:
            last = record
            status = status or STATUS_OF[record.state]
            if STATUS_OF[record.state] is not status:
                break
    return last


async def looks(
    services: Services, tenant: str, job_id: str, timeout_s: float, *, every_s: float = READ_EVERY_S
) -> AsyncGenerator[JobRecord, None]:
    """Give the record whenever it has changed and at least each `every_s`; the last time when it has ended or the time
    is up. Raises NotFoundError, and what the queue raises.
    """
    until_s = time.monotonic() + timeout_s
    record = None
    with services.changes.watch(tenant, job_id) as waiter:
        while True:
            left_s = READ_EVERY_S if record is None else until_s - time.monotonic()
            try:
                record = await waiter.next(min(every_s, left_s)) or record
            except JobNotFoundError:
                raise not_found() from None
            if record is not None:
                yield record
                if record.state in TERMINAL_STATES or time.monotonic() >= until_s:
                    return


async def unless_left(request: Request, waiting: Coroutine[Any, Any, T]) -> T:
    """Wait for it as long as the client does. Raises ClientLeftError."""
    answer = asyncio.create_task(waiting)
    leaving = asyncio.create_task(_left(request))
    try:
        await asyncio.wait({answer, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientLeftError("client_left", "the client went away")
        return answer.result()
    finally:
        answer.cancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    """Return when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
