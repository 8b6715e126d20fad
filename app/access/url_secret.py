"""The secret that signs addresses: given by the environment, else made once and kept on the queue's server."""

import secrets
from typing import cast

from redis.asyncio import Redis

from app.jobs.keys import PREFIX
from app.jobs.scripts import translated_errors

_KEY = f"{PREFIX}url-secret"
_BYTES = 32


class UrlSecret:
    """The same for every gateway of one queue. A new one ends every address that was given out."""

    def __init__(self, redis: Redis, given: str | None) -> None:
        self._redis = redis
        self._secret = given.encode() if given else None

    async def get(self) -> bytes:
        """Raises QueueUnavailableError or StorageFullError, until it was read once."""
        if self._secret is None:
            with translated_errors():
                made = secrets.token_hex(_BYTES)
                kept = cast(str | None, await self._redis.set(_KEY, made, nx=True, get=True))
                self._secret = (kept or made).encode()
        return self._secret
