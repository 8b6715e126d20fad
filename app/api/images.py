"""/v1/images: submit, read, list, fetch, cancel."""

import hashlib
from http import HTTPStatus
from typing import Annotated

import structlog
from fastapi import APIRouter, Path, Query, Request, Response

from app.api.deps import BaseUrlDep, Services, ServicesDep, TenantDep
from app.api.resolve import to_job
from app.api.schemas import ImageRequest
from app.api.views import STATUS_OF, ImageJobList, ImageJobView, Status, job_view
from app.catalog.catalog import ModelCard, UnknownModelError
from app.errors import ConflictError, GoneError, InvalidRequestError, NotFoundError, documented
from app.jobs.errors import JobNotFoundError
from app.jobs.schema import JobRecord
from app.jobs.store import ImageNotStoredError

log = structlog.get_logger()

router = APIRouter(prefix="/v1/images", tags=["images"])

_POLL_AFTER_S = 1
_RETRY_AFTER = {"Retry-After": {"description": "Seconds until a look pays.", "schema": {"type": "integer"}}}

JobId = Annotated[str, Path(description="The `id` of a job.", examples=["img_0123456789abcdef0123456789abcdef"])]


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
                **_RETRY_AFTER,
            },
        },
    },
)
async def submit(
    image_request: ImageRequest, services: ServicesDep, tenant: TenantDep, base_url: BaseUrlDep, response: Response
) -> ImageJobView:
    """Queue a job and answer at once. Poll the `Location` until its `status` is completed, failed or canceled."""
    settings = services.settings
    job = to_job(
        image_request,
        _card(services, image_request.model),
        tenant,
        max_prompt_chars=settings.max_prompt_chars,
        max_images=settings.max_images_per_request,
    )
    await services.queue.submit(job)
    services.metrics.jobs_submitted.labels(job.model, "native").inc()
    view = job_view(await services.queue.read(tenant, job.id), base_url)
    response.headers["Location"] = view.urls.self
    response.headers["Retry-After"] = str(_POLL_AFTER_S)
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
    return job_view(await _record(services, tenant, job_id), base_url)


@router.get(
    "/{job_id}/content",
    summary="Fetch an image's bytes",
    response_class=Response,
    responses={
        **documented(
            HTTPStatus.NOT_FOUND,
            HTTPStatus.CONFLICT,
            HTTPStatus.GONE,
            HTTPStatus.UNPROCESSABLE_ENTITY,
            HTTPStatus.SERVICE_UNAVAILABLE,
        ),
        200: {
            "description": "The image.",
            "content": {kind: {} for kind in ("image/png", "image/jpeg", "image/webp")},
            "headers": {"ETag": {"description": "The image's sha256.", "schema": {"type": "string"}}},
        },
        202: {"description": "Not ready yet.", "headers": _RETRY_AFTER},
        304: {"description": "The image is the one named in If-None-Match."},
    },
)
async def content(
    job_id: JobId,
    request: Request,
    services: ServicesDep,
    tenant: TenantDep,
    index: Annotated[int, Query(ge=0, description="Which of the job's images.")] = 0,
) -> Response:
    record = await _record(services, tenant, job_id)
    if index >= record.job.n:
        raise NotFoundError("image_not_found", f"the job has {record.job.n} images; there is no index {index}")
    if record.result is None:
        status = STATUS_OF[record.state]
        if status in (Status.QUEUED, Status.IN_PROGRESS):
            return Response(status_code=HTTPStatus.ACCEPTED, headers={"Retry-After": str(_POLL_AFTER_S)})
        raise ConflictError(f"image_{status}", f"the job is {status}: it has no images")
    image = record.result.images[index]
    headers = {"ETag": f'"{image.sha256}"', "Cache-Control": "private, max-age=31536000, immutable"}
    known = request.headers.get("if-none-match", "")
    if known == "*" or image.sha256 in known:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    try:
        data = await services.store.get(image.path)
    except ImageNotStoredError:
        raise GoneError("image_gone", "the image is no longer stored") from None
    if hashlib.sha256(data).hexdigest() != image.sha256:
        # The ETag promises these very bytes to every cache, for a year.
        log.error("image_damaged", job_id=job_id, path=image.path)
        raise GoneError("image_gone", "the stored image is damaged")
    return Response(data, media_type=image.content_type, headers=headers)


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
        raise _not_found() from None
    return job_view(await _record(services, tenant, job_id), base_url)


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


async def _record(services: Services, tenant: str, job_id: str) -> JobRecord:
    try:
        return await services.queue.read(tenant, job_id)
    except JobNotFoundError:
        raise _not_found() from None


def _not_found() -> NotFoundError:
    return NotFoundError("image_not_found", "there is no such job")
