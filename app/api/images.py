"""/v1/images: submit, read, list, cancel."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.api.accept import AskerDep, accept
from app.api.deps import ServicesDep, TenantDep
from app.api.links import LinksDep
from app.api.records import POLL_AFTER_S, RETRY_AFTER, JobId, find_record, not_found
from app.api.schemas import ImageRequest
from app.api.views import STATUS_OF, ImageJobList, ImageJobView, Status, job_view
from app.errors import InvalidRequestError, documented
from app.jobs.errors import JobNotFoundError

router = APIRouter(prefix="/v1/images", tags=["images"])


@router.post(
    "",
    status_code=HTTPStatus.ACCEPTED,
    summary="Ask for images",
    responses={
        **documented(
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.NOT_FOUND,
            HTTPStatus.REQUEST_TIMEOUT,
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            HTTPStatus.UNPROCESSABLE_ENTITY,
            HTTPStatus.TOO_MANY_REQUESTS,
            HTTPStatus.SERVICE_UNAVAILABLE,
        ),
        202: {
            "description": "Accepted: the job is queued.",
            "headers": {
                "Location": {"description": "The job.", "schema": {"type": "string"}},
                **RETRY_AFTER,
            },
        },
    },
)
async def submit(
    image_request: ImageRequest,
    services: ServicesDep,
    asker: AskerDep,
    response: Response,
) -> ImageJobView:
    """Queue a job and answer at once. Poll the `Location` until its `status` is completed, failed or canceled.

    With an `Idempotency-Key`, sending the same request again within a day answers the same job, and makes no other.
    """
    accepted = await accept(services, asker, image_request, "native")
    if not accepted.is_new:
        response.headers["Idempotency-Replayed"] = "true"
    view = job_view(await services.queue.read(asker.tenant, accepted.job_id), asker.links)
    response.headers["Location"] = view.urls.self
    response.headers["Retry-After"] = str(POLL_AFTER_S)
    return view


@router.get(
    "",
    summary="List jobs, newest first",
    responses=documented(HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE),
)
async def list_jobs(
    services: ServicesDep,
    tenant: TenantDep,
    links: LinksDep,
    limit: Annotated[int, Query(ge=1, le=100, description="Most jobs on a page.")] = 20,
    after: Annotated[str, Query(max_length=64, description="The `next_after` of the page before.")] = "",
    status: Annotated[Status | None, Query(description="Only jobs with this status.")] = None,
    model: Annotated[str, Query(max_length=128, description="Only jobs of this model.")] = "",
) -> ImageJobList:
    states = [state for state, shown in STATUS_OF.items() if shown is status]
    try:
        page = await services.queue.page(tenant, limit=limit, after=after, model=model, states=states)
    except JobNotFoundError:
        raise InvalidRequestError("invalid_after", f"there is no job {after!r} to start after", param="after") from None
    return ImageJobList(
        data=[job_view(record, links) for record in page.records],
        has_more=page.next_after is not None,
        next_after=page.next_after,
    )


@router.get(
    "/{job_id}",
    summary="Read a job",
    responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE),
)
async def read(job_id: JobId, services: ServicesDep, tenant: TenantDep, links: LinksDep) -> ImageJobView:
    return job_view(await find_record(services, tenant, job_id), links)


@router.post(
    "/{job_id}/cancel",
    summary="Cancel a job",
    responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE),
)
async def cancel(job_id: JobId, services: ServicesDep, tenant: TenantDep, links: LinksDep) -> ImageJobView:
    """Stop a job wherever it is; asking twice is fine. A job that has ended comes back as it is."""
    try:
        ended = await services.queue.cancel(tenant, job_id)
    except JobNotFoundError:
        raise not_found() from None
    record = await find_record(services, tenant, job_id)
    if ended:  # what a worker holds is counted by that worker
        services.metrics.jobs_finished.labels(record.job.model, "canceled", "").inc()
    return job_view(record, links)
