"""Keys on the queue's server, under its prefix.

| key      | type | holds                                                                  | lives  |
|----------|------|------------------------------------------------------------------------|--------|
| key:<id> | hash | tenant name sha256 roles created_ms revoked_ms, and limits of its own  | always |
| keys     | zset | every key's id -> server ms when it was made                           | always |
| keys:<t> | zset | a tenant's keys' ids -> the same                                       | always |

What belongs to one tenant is named after it at the end only: no name of a tenant makes another key of it.

A revoked key stays: that there ever was one is what closes a server (see `any_exist`), and its name may be asked for.
"""

from collections.abc import Mapping
from importlib import resources
from typing import cast

from pydantic import ValidationError
from redis.asyncio import Redis

from app.access.errors import KeyNotFoundError, TooManyKeysError, UnreadableKeyError
from app.access.key import KeyRecord
from app.jobs.keys import PREFIX
from app.jobs.scripts import translated_errors

# Two, so that a key is replaced without a moment in which none counts; no more, so that old ones are revoked.
MAX_ACTIVE_KEYS = 2


class KeyStore:
    """Every method raises QueueUnavailableError when the server cannot be reached."""

    def __init__(self, redis: Redis) -> None:
        folder = resources.files("app.access") / "lua"
        self._redis = redis
        self._create = redis.register_script((folder / "create_key.lua").read_text())
        self._revoke = redis.register_script((folder / "revoke_key.lua").read_text())

    async def create(self, record: KeyRecord) -> None:
        """Keep a new key; the server's clock says when. Raises TooManyKeysError."""
        fields = {name: value for name, value in _flat(record).items() if name not in ("id", "tenant", "created_ms")}
        words = [word for pair in fields.items() for word in pair]
        with translated_errors():
            made = await self._create(keys=[PREFIX], args=[record.id, record.tenant, MAX_ACTIVE_KEYS, *words])
        if not made:
            raise TooManyKeysError(f"{record.tenant} has {MAX_ACTIVE_KEYS} active keys; revoke one of them first")

    async def revoke(self, key_id: str) -> None:
        """End a key, for good; twice is fine. Raises KeyNotFoundError."""
        with translated_errors():
            if not await self._revoke(keys=[PREFIX], args=[key_id]):
                raise KeyNotFoundError(key_id)

    async def find(self, key_id: str) -> KeyRecord | None:
        """Raises UnreadableKeyError."""
        with translated_errors():
            fields = cast(dict[str, str], await self._redis.hgetall(f"{PREFIX}key:{key_id}"))
        return _record(key_id, fields) if fields else None

    async def of(self, tenant: str | None) -> list[KeyRecord]:
        """List a tenant's keys, or everybody's, oldest first. Raises UnreadableKeyError."""
        key = f"{PREFIX}keys" if tenant is None else f"{PREFIX}keys:{tenant}"
        with translated_errors():
            ids = cast(list[str], await self._redis.zrange(key, 0, -1))
        found = [await self.find(key_id) for key_id in ids]
        return [record for record in found if record is not None]

    async def any_exist(self) -> bool:
        """Whether a key was ever made."""
        with translated_errors():
            return bool(await self._redis.exists(f"{PREFIX}keys"))


def _flat(record: KeyRecord) -> dict[str, str]:
    fields = record.model_dump(mode="json", exclude_none=True)
    return {name: str(value) for name, value in fields.items()} | {"roles": ",".join(sorted(record.roles))}


def _record(key_id: str, fields: Mapping[str, str]) -> KeyRecord:
    try:
        return KeyRecord.model_validate({**fields, "id": key_id, "roles": fields["roles"].split(",")})
    except (KeyError, ValidationError) as error:
        raise UnreadableKeyError(key_id) from error
