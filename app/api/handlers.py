"""Whatever goes wrong becomes the one error body."""

import math
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app.errors import (
    ApiError,
    InvalidRequestError,
    NotFoundError,
    QueueBusyError,
    UnavailableError,
    error_response,
)
from app.jobs.errors import (
    KeyReusedError,
    QueueError,
    QueueFullError,
    StorageFullError,
    TenantFullError,
    UnreadableJobError,
)
from app.jobs.store import StoreError
from app.middleware import too_large

log = structlog.get_logger()

_SIZE_FIELDS = frozenset({"width", "height", "size"})
_RETRY_LATER = {"Retry-After": "1"}


def add_error_handlers(app: FastAPI, max_body_bytes: int) -> None:
    @app.exception_handler(ApiError)
    async def on_api_error(request: Request, error: ApiError) -> Response:
        return error_response(error, _request_id(request))

    @app.exception_handler(RequestValidationError)
    async def on_validation_error(request: Request, error: RequestValidationError) -> Response:
        return error_response(_invalid_request(error.errors()), _request_id(request))

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> Response:
        return error_response(_from_status(request, error, max_body_bytes), _request_id(request))

    @app.exception_handler(QueueError)
    async def on_queue_error(request: Request, error: QueueError) -> Response:
        return error_response(from_queue(error), _request_id(request))

    @app.exception_handler(StoreError)
    async def on_store_error(request: Request, error: StoreError) -> Response:
        log.error("store_failed", error=str(error))
        message = "The image store cannot be read now; try again."
        unavailable = UnavailableError("storage_unavailable", message, headers=_RETRY_LATER)
        return error_response(unavailable, _request_id(request))

    @app.exception_handler(Exception)
    async def on_any_error(request: Request, error: Exception) -> Response:
        # Logged with its traceback by the server; the client learns only how to report it.
        internal = ApiError("internal_error", "Something broke on our side; please report the request id.")
        return error_response(internal, _request_id(request))


def _request_id(request: Request) -> str:
    request_id: str = request.state.request_id
    return request_id


def _invalid_request(problems: Sequence[Any]) -> ApiError:
    """Show the first problem: fixing it is what its author does next anyway."""
    problem = problems[0]
    context = problem.get("ctx", {})
    if problem["type"] == "json_invalid":
        at = problem["loc"][-1]
        message = f"the body is not JSON: {context['error']} (character {at})"
        return InvalidRequestError("invalid_json", message, status=HTTPStatus.BAD_REQUEST)
    if problem["type"] == "darkroom":
        return InvalidRequestError(context["code"], context["message"], param=context["param"])
    fields = [part for part in problem["loc"][1:] if isinstance(part, str)]
    if not fields:
        if isinstance(problem["input"], bytes):  # FastAPI reads JSON only where the client says that it is
            return InvalidRequestError("invalid_body", "send a JSON object, with Content-Type: application/json")
        return InvalidRequestError("invalid_body", "the body must be a JSON object")
    name = fields[0].lower().replace("-", "_")
    message = f"{name} is required" if problem["type"] == "missing" else f"{name}: {problem['msg']}"
    return InvalidRequestError("invalid_size" if name in _SIZE_FIELDS else f"invalid_{name}", message, param=name)


def _from_status(request: Request, error: HTTPException, max_body_bytes: int) -> ApiError:
    match error.status_code:
        case HTTPStatus.NOT_FOUND:
            return NotFoundError("not_found", f"there is nothing at {request.url.path[:256]}")
        case HTTPStatus.METHOD_NOT_ALLOWED:
            # Starlette names the methods of the first route at this address; the document has them all.
            path = getattr(request.scope.get("route"), "path", "")
            methods = sorted(request.app.openapi()["paths"].get(path, {}))
            return ApiError(
                "method_not_allowed",
                f"{request.method[:32]} is not for this address",
                status=HTTPStatus.METHOD_NOT_ALLOWED,
                headers={"Allow": ", ".join(methods).upper()} if methods else error.headers,
            )
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return too_large(max_body_bytes)
        case HTTPStatus.BAD_REQUEST:
            return _unreadable_body()
        case HTTPStatus.REQUEST_TIMEOUT:
            message = "the body did not arrive in time"
            return InvalidRequestError(
                "body_timeout", message, status=HTTPStatus.REQUEST_TIMEOUT, headers={"Connection": "close"}
            )
        case status:
            return ApiError("invalid_request", HTTPStatus(status).phrase, status=HTTPStatus(status))


def _unreadable_body() -> ApiError:
    # What json.loads gives up on without a JSONDecodeError.
    message = "the body cannot be read: it is not UTF-8, nested too deep, or holds a number that is too long"
    return InvalidRequestError("invalid_body", message, status=HTTPStatus.BAD_REQUEST)


def from_queue(error: QueueError) -> ApiError:
    """Say to a client what the queue said to us."""
    if isinstance(error, QueueFullError | TenantFullError):
        code = "queue_full" if isinstance(error, QueueFullError) else "too_many_jobs"
        seconds = math.ceil(error.retry_after_s)
        return QueueBusyError(code, f"{error}; try again in {seconds} s", headers={"Retry-After": str(seconds)})
    if isinstance(error, KeyReusedError):
        return InvalidRequestError(
            "idempotency_key_reused",
            "this Idempotency-Key came with another request before; use a new key for each request",
            param="idempotency_key",
        )
    if isinstance(error, StorageFullError):
        return UnavailableError("storage_full", "The queue's memory is full; try again later.", headers=_RETRY_LATER)
    if isinstance(error, UnreadableJobError):
        log.error("job_unreadable", job_id=str(error))
        message = "Another version of this server wrote the job, and this one cannot read it."
        return UnavailableError("job_unreadable", message, headers=_RETRY_LATER)
    log.error("queue_unavailable", error=str(error))
    return UnavailableError("queue_unavailable", "The queue cannot be reached now; try again.", headers=_RETRY_LATER)
