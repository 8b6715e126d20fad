"""/v1/images/{id}/content and /preview: bytes, once they are there and while they develop."""

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response

from app.api.deps import Services, ServicesDep
from app.api.etag import is_known
from app.api.links import Index, ShownTenantDep
from app.api.pictures import read_picture
from app.api.records import POLL_AFTER_S, RETRY_AFTER, JobId, find_record
from app.api.views import STATUS_OF
from app.errors import ConflictError, GoneError, NotFoundError, documented
from app.jobs.schema import TERMINAL_STATES, JobRecord, JobState
from app.jobs.store import ImageNotStoredError, preview_path

router = APIRouter(prefix="/v1/images", tags=["images"])


_CONTENT: dict[int | str, dict[str, Any]] = {
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
    202: {"description": "Not ready yet.", "headers": RETRY_AFTER},
    304: {"description": "The image is the one named in If-None-Match."},
}


@router.head("/{job_id}/content", summary="See whether an image is ready", response_class=Response, responses=_CONTENT)
@router.get("/{job_id}/content", summary="Fetch an image's bytes", response_class=Response, responses=_CONTENT)
async def content(
    job_id: JobId, request: Request, services: ServicesDep, tenant: ShownTenantDep, index: Index = 0
) -> Response:
    record = await _record_with(services, tenant, job_id, index)
    if record.result is None:
        if record.state not in TERMINAL_STATES:
            return _not_yet()
        status = STATUS_OF[record.state]
        raise ConflictError(f"image_{status}", f"the job is {status}: it has no images")
    if record.expired_ms is not None:
        raise GoneError("image_gone", "the image has had its time and is deleted")
    image = record.result.images[index]
    headers = {"ETag": f'"{image.sha256}"', "Cache-Control": "private, max-age=31536000, immutable"}
    if is_known(headers["ETag"], request.headers.get("if-none-match", "")):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(await read_picture(services.store, image), media_type=image.content_type, headers=headers)


@router.get(
    "/{job_id}/preview",
    summary="Fetch an image's latest preview while it develops",
    response_class=Response,
    responses={
        **documented(
            HTTPStatus.NOT_FOUND, HTTPStatus.GONE, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE
        ),
        200: {"description": "The latest preview, small and rough.", "content": {"image/jpeg": {}}},
        202: {"description": "There is no preview yet.", "headers": RETRY_AFTER},
        410: {
            **documented(HTTPStatus.GONE)[HTTPStatus.GONE],
            "description": "The job has ended (`preview_gone`); what it drew is at `content`.",
        },
    },
)
async def preview(job_id: JobId, services: ServicesDep, tenant: ShownTenantDep, index: Index = 0) -> Response:
    """Poll it beside the job; ask for `content` once this answers 410. A job that waits for another attempt still shows
    the preview of the one before."""
    record = await _record_with(services, tenant, job_id, index)
    if record.state is JobState.COMPLETED:
        raise GoneError("preview_gone", "the job is completed: fetch the image itself, its `content`")
    if record.state in TERMINAL_STATES:
        raise GoneError("preview_gone", f"the job is {STATUS_OF[record.state]}: there is nothing more to see of it")
    try:
        data = await services.store.get(preview_path(job_id, index))
    except ImageNotStoredError:
        return _not_yet()
    return Response(data, media_type="image/jpeg", headers={"Cache-Control": "no-store"})


def _not_yet() -> Response:
    return Response(status_code=HTTPStatus.ACCEPTED, headers={"Retry-After": str(POLL_AFTER_S)})


async def _record_with(services: Services, tenant: str, job_id: str, index: int) -> JobRecord:
    """Read the job that has this image. Raises NotFoundError."""
    record = await find_record(services, tenant, job_id)
    if index >= record.job.n:
        raise NotFoundError("image_not_found", f"the job has {record.job.n} images; there is no index {index}")
    return record
