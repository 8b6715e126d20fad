"""/v1/images: submit, read, list, cancel."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from app.api.deps import BaseUrlDep, Services, ServicesDep, TenantDep
from app.api.records import POLL_AFTER_S, RETRY_AFTER, JobId, find_record, not_found
from app.api.resolve import body_sha256, to_job
from app.api.schemas import ImageRequest
from app.api.views import STATUS_OF, ImageJobList, ImageJobView, Status, job_view
from app.catalog.catalog import ModelCard, UnknownModelError
from app.errors import InvalidRequestError, NotFoundError, UnavailableError, documented
from app.jobs.errors import JobNotFoundError
from app.jobs.queue import Idempotency

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[!-~]+$",
        description="Your own name for this request, new for each one, such as a UUID.",
    ),
]

router = APIRouter(prefix="/v1/images", tags=["images"])

_ROOM_AFTER_S = 10  # somebody must make it: sooner is no use


@router.post(
    "",
    status_code=HTTPStatus.ACCEPTED,
    summary="Ask for images",
    responses={
        **documented(
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.NOT_FOUND,
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
    tenant: TenantDep,
    base_url: BaseUrlDep,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> ImageJobView:
    """Queue a job and answer at once. Poll the `Location` until its `status` is completed, failed or canceled.

    With an `Idempotency-Key`, sending the same request again within a day answers the same job, and makes no other.
    Where the queue is full (429), a place is kept for whoever comes back under the same key after `Retry-After`.
    """
    settings = services.settings
    card = _card(services, image_request.model)
    job = to_job(
        image_request,
        card,
        tenant,
        max_prompt_chars=settings.max_prompt_chars,
        max_images=settings.max_images_per_request,
    )
    if await services.room.is_full():
        message = "The image store's disk is full; try again later."
        raise UnavailableError("storage_full", message, headers={"Retry-After": str(_ROOM_AFTER_S)})
    idempotency = Idempotency(idempotency_key, body_sha256(image_request)) if idempotency_key else None
    job_id = await services.queue.submit(job, cost_s=services.watch.cost_s(job, card), idempotency=idempotency)
    if job_id == job.id:
        services.metrics.jobs_submitted.labels(job.model, "native").inc()
    else:
        response.headers["Idempotency-Replayed"] = "true"
    view = job_view(await services.queue.read(tenant, job_id), base_url)
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
    base_url: BaseUrlDep,
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
        data=[job_view(record, base_url) for record in page.records],
        has_more=page.next_after is not None,
        next_after=page.next_after,
    )


@router.get(
    "/{job_id}",
    summary="Read a job",
    responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE),
)
async def read(job_id: JobId, services: ServicesDep, tenant: TenantDep, base_url: BaseUrlDep) -> ImageJobView:
    return job_view(await find_record(services, tenant, job_id), base_url)


@router.post(
    "/{job_id}/cancel",
    summary="Cancel a job",
    responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE),
)
async def cancel(job_id: JobId, services: ServicesDep, tenant: TenantDep, base_url: BaseUrlDep) -> ImageJobView:
    """Stop a job wherever it is; asking twice is fine. A job that has ended comes back as it is."""
    try:
        await services.queue.cancel(tenant, job_id)
    except JobNotFoundError:
        raise not_found() from None
    return job_view(await find_record(services, tenant, job_id), base_url)


def _card(services: Services, name: str | None) -> ModelCard:
    catalog = services.catalog
    try:
        return catalog[next(iter(catalog)) if name is None else name]
    except UnknownModelError as error:
        raise NotFoundError(
            "model_not_found",
            f"there is no model {error.name[:128]!r} here; known: {', '.join(error.known)}",
            param="model",
        ) from None
