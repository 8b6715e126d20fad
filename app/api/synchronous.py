"""Pictures for clients that know no jobs: they send one request and wait for its answer."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus

import anyio
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from app.api.accept import Asker, accept
from app.api.deps import Services
from app.api.schemas import ImageRequest
from app.api.waiting import unless_left, wait_for_end
from app.errors import NO_RETRY, ConflictError, JobFailedError, WaitTimeoutError, documented
from app.jobs.schema import ImageFile, JobRecord, JobState

# What a route that waits may answer instead of pictures.
ERRORS = documented(
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.CONFLICT,
    HTTPStatus.GONE,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A job that was waited for, with its pictures."""

    record: JobRecord
    images: Sequence[ImageFile]


async def draw(request: Request, services: Services, asker: Asker, image_request: ImageRequest, api: str) -> Drawn:
    """Queue the job and wait for its pictures. Raises ApiError, and what the queue raises.

    A client that leaves takes its job with it, unless it sent an Idempotency-Key: then it may ask again.
    """
    job_id = (await accept(services, asker, image_request, api)).job_id
    async with canceled_if_given_up(services, asker, job_id):
        timeout_s = services.settings.wait_timeout_s
        record = await unless_left(request, wait_for_end(services, asker.tenant, job_id, timeout_s))
        return Drawn(record, finished(record))


def finished(record: JobRecord) -> Sequence[ImageFile]:
    """Give the pictures of a job that was waited for. Raises ApiError where it has none."""
    if record.result is not None:
        return record.result.images
    if record.state is JobState.CANCELED:
        raise ConflictError("image_canceled", "the job was canceled")
    if record.error is None or record.state not in (JobState.FAILED, JobState.DEAD):
        raise WaitTimeoutError(
            "wait_timeout",
            "The picture was not ready in time, and the job was canceled. POST /v1/images answers at once.",
            headers=NO_RETRY,
        )
    if record.error.retryable:
        raise JobFailedError(
            record.error.code,
            record.error.message,
            status=HTTPStatus.SERVICE_UNAVAILABLE,
            headers={"Retry-After": "1"},
        )
    raise JobFailedError(record.error.code, record.error.message, headers=NO_RETRY)


@asynccontextmanager
async def canceled_if_given_up(services: Services, asker: Asker, job_id: str) -> AsyncIterator[None]:
    """Cancel the job when whoever waits for it ends with an exception: the client left, or the time was up."""
    try:
        yield
    except BaseException:
        if asker.idempotency_key is None:
            with anyio.CancelScope(shield=True):
                await services.queue.cancel(asker.tenant, job_id)
        raise


def image_request(fields: Mapping[str, object]) -> ImageRequest:
    """Check a request that another API's words were translated to. Raises RequestValidationError."""
    try:
        return ImageRequest.model_validate(fields)
    except ValidationError as error:
        problems = [{**problem, "loc": ("body", *problem["loc"])} for problem in error.errors(include_url=False)]
        raise RequestValidationError(problems) from None
