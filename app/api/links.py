"""Addresses in answers. Those of pictures are signed where keys are asked for, so that a browser can show them."""

import time
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Depends, Query, Request

from app.access.signature import Kind, SignedAddress, expiry_s
from app.api.deps import BaseUrlDep, CallerDep, ServicesDep, TenantQuery, named_tenant
from app.api.gatekeeper import unauthorized
from app.api.records import JobId
from app.errors import ForbiddenError

Index = Annotated[int, Query(ge=0, description="Which of the job's images.")]


@dataclass(frozen=True, slots=True)
class Links:
    """secret: None leaves addresses unsigned. expires_s: since the epoch."""

    base_url: str
    secret: bytes | None = None
    expires_s: int = 0

    def job(self, job_id: str) -> str:
        return f"{self.base_url}/v1/images/{job_id}"

    def picture(self, kind: Kind, tenant: str, job_id: str, index: int | None = None) -> str:
        """The address of an image, or of its preview; without an index, of the first."""
        query = {} if index is None else {"index": str(index)}
        if self.secret is not None:
            address = SignedAddress(tenant, job_id, kind, index or 0, self.expires_s)
            query |= {
                "tenant": tenant,
                "expires": str(self.expires_s),
                "signature": address.signature(self.secret),
            }
        return f"{self.job(job_id)}/{kind}" + (f"?{urlencode(query)}" if query else "")


async def _links(base_url: BaseUrlDep, services: ServicesDep, caller: CallerDep) -> Links:
    if caller.key_id is None:
        return Links(base_url)
    lifetime_s = services.settings.url_lifetime_s
    return Links(base_url, await services.url_secret.get(), expiry_s(time.time(), lifetime_s))


LinksDep = Annotated[Links, Depends(_links)]


async def _shown_tenant(
    request: Request,
    services: ServicesDep,
    job_id: JobId,
    index: Index = 0,
    tenant: TenantQuery = None,
    expires: Annotated[str, Query(description="Of a signed address: when it ends, since the epoch.")] = "",
    signature: Annotated[str, Query(description="Of a signed address: who has it needs no key.")] = "",
) -> str:
    """Whose picture is asked for. Raises UnauthorizedError or ForbiddenError, before the job is looked for."""
    if signature:
        secret = await services.url_secret.get()
        kind: Kind = "preview" if request.url.path.endswith("/preview") else "content"
        if tenant is not None and expires.isdecimal() and len(expires) < 20:
            address = SignedAddress(tenant, job_id, kind, index, int(expires))
            if address.holds(signature, secret, time.time()):
                return tenant
    caller = request.state.caller
    if caller is not None:
        return named_tenant(caller, tenant)
    if signature:
        raise ForbiddenError(
            "invalid_signature",
            "the address has expired, or was changed; read the job for a new one",
            param="signature",
        )
    raise unauthorized()


ShownTenantDep = Annotated[str, Depends(_shown_tenant)]
