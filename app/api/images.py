"""/v1/images: submit, read, list, cancel, delete."""

from http import HTTPStatus
from typing import Annotated

import structlog
from fastapi import APIRouter, Header, Query, Request, Response

from app.api.accept import AskerDep, accept
from app.api.deps import ServicesDep, TenantDep
from app.api.etag import is_known, tag_of
from app.api.links import LinksDep
from app.api.prefer import APPLIED, WaitDep, applied
from app.api.records import POLL_AFTER_S, RETRY_AFTER, JobId, cancel_job, find_record, not_found
from app.api.schemas import MAX_DEADLINE_S, ImageRequest
from app.api.synchronous import canceled_if_given_up
from app.api.views import STATUS_OF, ImageJobList, ImageJobView, Status, job_view
from app.api.waiting import unless_left, wait_for_change, wait_for_end
from app.errors import ConflictError, InvalidRequestError, documented
from app.jobs.errors import JobNotFoundError
from app.jobs.schema import TERMINAL_STATES
from app.jobs.store import StoreError
from app.jobs.sweep import delete_files
from app.jobs.upkeep import Purged

router = APIRouter(prefix="/v1/images", tags=["images"])

log = structlog.get_logger()

LOCATION = {"Location": {"description": "The job.", "schema": {"type": "string"}}}
REPLAYED = {
    "Idempotency-Replayed": {
        "description": "`true`: the same request came under this `Idempotency-Key` before, and this is its job.",
        "schema": {"type": "string", "enum": ["true"]},
    }
}


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
        200: {
            "model": ImageJobView,
            "description": "With `Prefer: wait`: the job has ended within that time.",
            "headers": {**LOCATION, **REPLAYED, **APPLIED},
        },
        202: {
            "description": "Accepted: the job is queued.",
            "headers": {**LOCATION, **REPLAYED, **APPLIED, **RETRY_AFTER},
        },
    },
)
async def submit(
    image_request: ImageRequest,
    request: Request,
    services: ServicesDep,
    asker: AskerDep,
    wait_s: WaitDep,
    response: Response,
    cancel_after: Annotated[
        int | None,
        Header(ge=1, le=MAX_DEADLINE_S, description="Seconds after which the job is canceled unless it is finished."),
    ] = None,
) -> ImageJobView:
    """Queue a job and answer at once. Then follow its `urls.events`, or read the `Location` with `Prefer: wait`, until
    its `status` is completed, failed or canceled.

    With an `Idempotency-Key`, sending the same request again within a day answers the same job, and makes no other.
    With `Prefer: wait=SECONDS` the answer is the finished job, if it is finished by then; leaving before the answer
    cancels it, unless there is an `Idempotency-Key`.
    Where the queue is full (429), a place is kept for whoever comes back under the same key after `Retry-After`.
    """
    accepted = await accept(services, asker, image_request, "native", cancel_after_s=cancel_after)
    if not accepted.is_new:
        response.headers["Idempotency-Replayed"] = "true"
    if wait_s:
        async with canceled_if_given_up(services, asker, accepted.job_id):
            record = await unless_left(request, wait_for_end(services, asker.tenant, accepted.job_id, wait_s))
    else:
        record = await services.queue.read(asker.tenant, accepted.job_id)
    view = job_view(record, asker.links, services.settings.keep_pictures_s)
    response.headers["Location"] = view.urls.self
    response.headers.update(applied(wait_s))
    if wait_s and record.state in TERMINAL_STATES:
        response.status_code = HTTPStatus.OK
    else:
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
        data=[job_view(record, links, services.settings.keep_pictures_s) for record in page.records],
        has_more=page.next_after is not None,
        next_after=page.next_after,
    )


@router.get(
    "/{job_id}",
    summary="Read a job",
    responses={
        **documented(
            HTTPStatus.NOT_FOUND,
            HTTPStatus.REQUEST_TIMEOUT,
            HTTPStatus.UNPROCESSABLE_ENTITY,
            HTTPStatus.SERVICE_UNAVAILABLE,
        ),
        200: {
            "description": "The job.",
            "headers": {"ETag": {"description": "Of this state of it.", "schema": {"type": "string"}}, **APPLIED},
        },
        304: {"description": "The job is as the one named in If-None-Match."},
    },
    response_model=ImageJobView,
)
async def read(
    job_id: JobId,
    request: Request,
    services: ServicesDep,
    tenant: TenantDep,
    links: LinksDep,
    wait_s: WaitDep,
    response: Response,
) -> ImageJobView | Response:
    """With `Prefer: wait=SECONDS` it answers once the job's `status` is another than now, has ended, or the time is
    up.
    """
    if wait_s:
        record = await unless_left(request, wait_for_change(services, tenant, job_id, wait_s))
    else:
        record = await find_record(services, tenant, job_id)
    view = job_view(record, links, services.settings.keep_pictures_s)
    tag = tag_of(view)
    headers = {"ETag": tag, "Cache-Control": "private, no-cache", **applied(wait_s)}
    if is_known(tag, request.headers.get("if-none-match", "")):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    response.headers.update(headers)
    return view


@router.post(
    "/{job_id}/cancel",
    summary="Cancel a job",
    responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE),
)
async def cancel(job_id: JobId, services: ServicesDep, tenant: TenantDep, links: LinksDep) -> ImageJobView:
    """Stop a job wherever it is; asking twice is fine. A job that has ended comes back as it is."""
    return job_view(await cancel_job(services, tenant, job_id), links, services.settings.keep_pictures_s)


@router.delete(
    "/{job_id}",
    status_code=HTTPStatus.NO_CONTENT,
    summary="Delete a job and its images",
    responses={
        **documented(
            HTTPStatus.NOT_FOUND,
            HTTPStatus.CONFLICT,
            HTTPStatus.UNPROCESSABLE_ENTITY,
            HTTPStatus.SERVICE_UNAVAILABLE,
        ),
        409: {
            **documented(HTTPStatus.CONFLICT)[HTTPStatus.CONFLICT],
            "description": "`image_in_progress`: a worker has it, and is told to stop. Ask again.",
            "headers": RETRY_AFTER,
        },
    },
)
async def delete(job_id: JobId, services: ServicesDep, tenant: TenantDep) -> None:
    """For good: afterwards there is no such job. One that has not ended is canceled first."""
    record = await cancel_job(services, tenant, job_id)
    [purged] = await services.upkeep.purge(tenant, [job_id])
    if purged is Purged.OPEN:
        raise ConflictError(
            "image_in_progress",
            "a worker has the job; it is told to stop. Try again in a moment",
            headers={"Retry-After": str(POLL_AFTER_S), "x-should-retry": "true"},
        )
    if purged is Purged.MISSING:
        raise not_found()
    try:
        await delete_files(services.store, job_id, record.job.n)
    except StoreError as error:
        log.warning("files_left_to_the_sweep", job_id=job_id, error=str(error))
