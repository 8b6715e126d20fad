"""What the routes of one job share: its id in the address, and its record."""

from typing import Annotated

from fastapi import Path

from app.api.deps import Services
from app.errors import NotFoundError
from app.jobs.errors import JobNotFoundError
from app.jobs.schema import JobRecord

POLL_AFTER_S = 1
RETRY_AFTER = {
    "Retry-After": {"description": "Seconds until a look pays.", "required": True, "schema": {"type": "integer"}}
}

JobId = Annotated[str, Path(description="The `id` of a job.", examples=["img_0123456789abcdef0123456789abcdef"])]


async def find_record(services: Services, tenant: str, job_id: str) -> JobRecord:
    """Read a tenant's job. Raises NotFoundError."""
    try:
        return await services.queue.read(tenant, job_id)
    except JobNotFoundError:
        raise not_found() from None


async def cancel_job(services: Services, tenant: str, job_id: str) -> JobRecord:
    """Cancel a tenant's job where it is open, count that, and give it as it is then. Raises NotFoundError."""
    try:
        ended = await services.queue.cancel(tenant, job_id)
    except JobNotFoundError:
        raise not_found() from None
    record = await find_record(services, tenant, job_id)
    if ended:  # what a worker holds is counted by that worker
        services.metrics.jobs_finished.labels(record.job.model, "canceled", "").inc()
    return record


def not_found() -> NotFoundError:
    return NotFoundError("image_not_found", "there is no such job")
