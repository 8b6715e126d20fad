"""The gateway's one error tree and its one error body.

    ApiError
    ├── InvalidRequestError       400, 408 or 422, invalid_*, unknown_parameter, over_budget,
    │                             body_timeout, idempotency_key_reused
    ├── UnauthorizedError         401, unauthorized: no key, or none that counts
    ├── ForbiddenError            403, forbidden, invalid_signature
    ├── NotFoundError             404, model_not_found, image_not_found, not_found
    ├── ConflictError             409, the image is not there and will not come; image_in_progress
    ├── GoneError                 410, image_gone, preview_gone
    ├── TooLargeError             413, payload_too_large
    ├── QueueBusyError            429, queue_full, too_many_jobs
    ├── RateLimitedError          429, rate_limited
    ├── JobFailedError            500 or 503, the job's own code, to those who waited for it
    ├── WaitTimeoutError          504, wait_timeout
    ├── ClientLeftError           408, client_left: nobody is there to read it
    └── UnavailableError          503, queue_unavailable, storage_full, storage_unavailable, job_unreadable,
                                      key_unreadable

The body has RFC 9457's members at the top and OpenAI's object under `error`, so that either kind of client finds its
own. It never holds an exception's text.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

TYPE_BASE = "https://darkroom.dev/errors/"


class OpenAIError(BaseModel):
    """The object that OpenAI's clients read."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """Every error of this API: RFC 9457 problem details, with OpenAI's error object inside."""

    type: str = Field(examples=[TYPE_BASE + "invalid_size"])
    title: str = Field(examples=["Unprocessable Entity"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["width 1000 is not a multiple of 16; try 992 or 1008"])
    code: str = Field(description="Stable; switch on this.", examples=["invalid_size"])
    param: str | None = Field(description="The request's field at fault.", examples=["width"])
    request_id: str
    error: OpenAIError


class ApiError(Exception):
    """An answer that is not what was asked for."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        status: HTTPStatus | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.status = status or type(self).status
        self.headers = dict(headers or {})


class InvalidRequestError(ApiError):
    status = HTTPStatus.UNPROCESSABLE_ENTITY


class UnauthorizedError(ApiError):
    status = HTTPStatus.UNAUTHORIZED


class ForbiddenError(ApiError):
    status = HTTPStatus.FORBIDDEN


class NotFoundError(ApiError):
    status = HTTPStatus.NOT_FOUND


class ConflictError(ApiError):
    status = HTTPStatus.CONFLICT


class GoneError(ApiError):
    status = HTTPStatus.GONE


class TooLargeError(ApiError):
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class QueueBusyError(ApiError):
    status = HTTPStatus.TOO_MANY_REQUESTS


class RateLimitedError(ApiError):
    status = HTTPStatus.TOO_MANY_REQUESTS


class UnavailableError(ApiError):
    status = HTTPStatus.SERVICE_UNAVAILABLE


class JobFailedError(ApiError):
    pass


class WaitTimeoutError(ApiError):
    status = HTTPStatus.GATEWAY_TIMEOUT


class ClientLeftError(ApiError):
    status = HTTPStatus.REQUEST_TIMEOUT


def error_body(error: ApiError, request_id: str) -> ErrorBody:
    return ErrorBody(
        type=TYPE_BASE + error.code,
        title=error.status.phrase,
        status=error.status,
        detail=error.message,
        code=error.code,
        param=error.param,
        request_id=request_id,
        error=OpenAIError(
            message=error.message,
            type="server_error" if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error",
            param=error.param,
            code=error.code,
        ),
    )


def error_response(error: ApiError, request_id: str) -> JSONResponse:
    # OpenAI's clients try again after 408, 409 and 500 to 599 unless they are told otherwise.
    retry = {} if error.status in _RETRYABLE or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR else NO_RETRY
    headers = {"x-request-id": request_id, **retry, **error.headers}
    return JSONResponse(error_body(error, request_id).model_dump(), error.status, headers=headers)


NO_RETRY = {"x-should-retry": "false"}
_RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds to wait before trying again.",
        "required": True,
        "schema": {"type": "integer"},
    }
}
_RETRYABLE = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})

# For every route. It also keeps FastAPI from documenting its own 422, a body that this API never sends.
ANY_OTHER_ERROR: dict[int | str, dict[str, Any]] = {
    "default": {"model": ErrorBody, "description": "Any other error, an internal one included, has the same body."}
}


def documented(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """Describe these error answers in the OpenAPI document."""
    return {
        int(status): {
            "model": ErrorBody,
            "description": status.phrase,
            **({"headers": _RETRY_AFTER} if status in _RETRYABLE else {}),
        }
        for status in statuses
    }
