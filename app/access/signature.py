"""Signatures of addresses: one image of one job, readable without a key until a time."""

import hmac
from dataclasses import dataclass
from typing import Literal

Kind = Literal["content", "preview"]


@dataclass(frozen=True, slots=True)
class SignedAddress:
    """What a signature vouches for: nothing else opens with it. expires_s: since the epoch."""

    tenant: str
    job_id: str
    kind: Kind
    index: int
    expires_s: int

    def signature(self, secret: bytes) -> str:
        # No field that we sign holds a line break, so no other fields can be read from the same lines.
        lines = ("darkroom-address-v1", self.tenant, self.job_id, self.kind, str(self.index), str(self.expires_s))
        return hmac.digest(secret, "\n".join(lines).encode("utf-8", "surrogatepass"), "sha256").hex()

    def holds(self, signature: str, secret: bytes, now_s: float) -> bool:
        """Whether this is its signature, compared in constant time, and it has not expired."""
        given = signature.encode("utf-8", "surrogatepass")
        return hmac.compare_digest(given, self.signature(secret).encode()) and now_s < self.expires_s


def expiry_s(now_s: float, lifetime_s: int) -> int:
    """When an address that is given out now expires: in one to two lifetimes.

    The same for a lifetime, so that a job that did not change is shown with the same addresses, and caches hit.
    """
    return (int(now_s) // lifetime_s + 2) * lifetime_s
