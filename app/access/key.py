"""An API key: how it is made, written and compared, and what is kept of it.

A key is `dk_<id>.<secret>`. Its secret is 256 random bits, so that a plain SHA-256 of it, which is all that is kept,
tells nobody anything; a slow hash is for passwords that people choose.
"""

import hashlib
import hmac
import re
import secrets
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.jobs.schema import Priority

DEFAULT_TENANT = "default"
_SECRET_BYTES = 32
_ID_BYTES = 8
_KEY = re.compile(r"dk_([0-9a-f]{16})\.([A-Za-z0-9_-]{43})")

TenantName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class Role(StrEnum):
    """What a key is for. `admin` may do all of it, for every tenant that it names."""

    SUBMIT = "submit"
    READ = "read"
    ADMIN = "admin"


class KeyRecord(BaseModel):
    """What is kept of a key. Limits that are None are the server's own. Times are the queue server's, in ms."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    tenant: TenantName
    name: str = Field(default="", max_length=64, description="Its owner's own word for it.")
    sha256: str
    roles: frozenset[Role] = Field(min_length=1)
    max_priority: Priority = Priority.HIGH
    requests_per_minute: int | None = Field(default=None, ge=1)
    megapixel_steps_per_hour: int | None = Field(default=None, ge=1)
    created_ms: int = 0
    revoked_ms: int | None = None

    def opens_with(self, secret: str) -> bool:
        """Whether this is the key's secret and the key still counts, in a time that does not depend on the secret."""
        return hmac.compare_digest(digest(secret), self.sha256) and self.revoked_ms is None


def new_key() -> tuple[str, str, str]:
    """Make a key: its id, its secret, and the whole as its owner writes it. It is shown once and kept nowhere."""
    key_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
    return key_id, secret, f"dk_{key_id}.{secret}"


def split_key(text: str) -> tuple[str, str] | None:
    """Give id and secret of what is written like a key, else None."""
    match = _KEY.fullmatch(text)
    return None if match is None else (match[1], match[2])


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
