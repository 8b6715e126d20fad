"""What happens to every request: an id, a cap and a time limit for its body, and a measurement.

Plain ASGI. Starlette has a body limit of its own, but answers in plain text where this API has one error body.
"""

import asyncio
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import TooLargeError, error_response
from app.metrics import GatewayMetrics

# A method is any word that a client likes; each would be a time series for ever.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class RequestMiddleware:
    """Sets scope["state"]["request_id"]: the client's own x-request-id where it is well-formed, else a new one."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics, max_body_bytes: int, body_timeout_s: float) -> None:
        self._app = app
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given_id = headers.get("x-request-id", "")
        request_id = given_id if _REQUEST_ID.fullmatch(given_id) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started_s = time.perf_counter()
        status = 500
        received_bytes = 0
        arriving = True
        until_s = asyncio.get_running_loop().time() + self._body_timeout_s

        async def receive_capped() -> Message:
            nonlocal received_bytes, arriving
            if not arriving:  # what comes now is that the client hung up, in an hour perhaps
                return await receive()
            try:
                async with asyncio.timeout_at(until_s):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408) from None
            arriving = message.get("more_body", False)
            received_bytes += len(message.get("body", b""))
            if received_bytes > self._max_body_bytes:
                # FastAPI turns any exception but this kind into a 400 while it reads a body.
                raise HTTPException(413)
            return message

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).setdefault("x-request-id", request_id)
            await send(message)

        try:
            declared = headers.get("content-length", "0")
            # Twenty digits are over any limit, and int() refuses thousands of them.
            if declared.isdecimal() and int(declared[:20]) > self._max_body_bytes:
                response = error_response(too_large(self._max_body_bytes), request_id)
                await response(scope, receive, send_with_id)
            else:
                await self._app(scope, receive_capped, send_with_id)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.http_requests.labels(route, method, status).inc()
            self._metrics.http_request_seconds.labels(route).observe(time.perf_counter() - started_s)


def too_large(max_body_bytes: int) -> TooLargeError:
    return TooLargeError("payload_too_large", f"The request body may hold at most {max_body_bytes} bytes.")
