"""Who asks: every request passes here before anything of it is read, and whoever may not is told so.

Closed by default: a new route is open to nobody without a key. Reading needs the role `read`, all else `submit`.
"""

import base64
import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.access.caller import Caller, anybody, holder
from app.access.errors import UnreadableKeyError
from app.access.key import Role, split_key
from app.access.key_cache import KeyCache
from app.api.handlers import from_queue
from app.errors import ApiError, ForbiddenError, UnauthorizedError, UnavailableError, error_response
from app.jobs.errors import QueueError

# What tells nothing of anybody: probes, and the description of the API.
OPEN_PATHS = frozenset({"/livez", "/readyz", "/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"})

# What a browser fetches by an address alone. Their routes check the signature: links.tenant_of.
_SIGNED_PATH = re.compile(r"/v1/images/[^/]+/(content|preview)")
_READING = frozenset({"GET", "HEAD"})


class Gatekeeper:
    """Sets scope["state"]["caller"]: a Caller, or None where only a signature can tell."""

    def __init__(self, app: ASGIApp, keys: KeyCache, always_asks: bool) -> None:
        """always_asks: ask for keys even while none was ever made."""
        self._app = app
        self._keys = keys
        self._always_asks = always_asks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            try:
                scope["state"]["caller"] = await self._caller(scope)
            except ApiError as error:
                await error_response(error, scope["state"]["request_id"])(scope, receive, send)
                return
            except QueueError as error:
                await error_response(from_queue(error), scope["state"]["request_id"])(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _caller(self, scope: Scope) -> Caller | None:
        text = _presented(Headers(scope=scope).get("authorization"))
        if text is None or not text.startswith("dk_"):
            # Not for the scrape: it must go on where the keys' server is away, to show that.
            if not self._always_asks and (scope["path"] == "/metrics" or not await self._keys.any_exist()):
                return anybody()  # clients that must send some key send any word
            if scope["method"] in _READING and _SIGNED_PATH.fullmatch(scope["path"]):
                return None
        caller = await self._holder(text)
        role = _needed(scope)
        if not caller.may(role):
            has = ", ".join(sorted(caller.roles))
            raise ForbiddenError("forbidden", f"this needs a key with the role {role}; yours has: {has}")
        return caller

    async def _holder(self, text: str | None) -> Caller:
        if text is None:
            raise unauthorized()
        parts = split_key(text)
        try:
            record = await self._keys.find(parts[0]) if parts else None
        except UnreadableKeyError:
            message = "Another version of this server made the key, and this one cannot read it."
            raise UnavailableError("key_unreadable", message, headers={"Retry-After": "1"}) from None
        if parts is None or record is None or not record.opens_with(parts[1]):
            raise UnauthorizedError(
                "unauthorized",
                "there is no such key, or it was revoked",
                headers={"WWW-Authenticate": 'Bearer realm="darkroom", error="invalid_token"'},
            )
        return holder(record)


def unauthorized() -> UnauthorizedError:
    return UnauthorizedError(
        "unauthorized",
        "this server asks for a key; send it as Authorization: Bearer dk_...",
        headers={"WWW-Authenticate": 'Bearer realm="darkroom"'},
    )


def _presented(authorization: str | None) -> str | None:
    """Give the key of a Bearer header or the password of a Basic one; empty where that is nothing of ours."""
    if authorization is None:
        return None
    scheme, _, rest = authorization.partition(" ")
    match scheme.lower():
        case "bearer":
            return rest.strip()
        case "basic":
            try:
                return base64.b64decode(rest.strip(), validate=True).decode().partition(":")[2]
            except ValueError:
                return ""
        case _:
            return ""


def _needed(scope: Scope) -> Role:
    if scope["path"] == "/metrics":
        return Role.ADMIN  # it counts everybody's jobs
    return Role.READ if scope["method"] in _READING else Role.SUBMIT
