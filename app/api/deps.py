"""What routes are handed. All of it is built once, in create_app."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query, Request, Security
from fastapi.security import HTTPBearer

from app.access.caller import Caller
from app.access.key import Role
from app.access.url_secret import UrlSecret
from app.advice.advisor import Advisor
from app.api.chosen_models import ChosenModels
from app.api.gatekeeper import unauthorized
from app.api.quotas import Quotas
from app.catalog.catalog import Catalog
from app.changes import Changes
from app.errors import ForbiddenError
from app.jobs.queue import JobQueue
from app.jobs.room import StoreRoom
from app.jobs.store import ImageStore
from app.jobs.upkeep import Upkeep
from app.metrics import GatewayMetrics
from app.queue_watch import QueueWatch
from app.settings import GatewaySettings
from app.webhooks.outbox import Outbox


@dataclass(frozen=True, slots=True)
class Services:
    """The gateway's objects, kept on `app.state.services`."""

    settings: GatewaySettings
    catalog: Catalog
    queue: JobQueue
    watch: QueueWatch
    changes: Changes
    upkeep: Upkeep
    store: ImageStore
    room: StoreRoom
    metrics: GatewayMetrics
    quotas: Quotas
    url_secret: UrlSecret
    outbox: Outbox
    advisor: Advisor
    chosen_models: ChosenModels


# For the OpenAPI document: it is the gatekeeper who reads the header.
_KeyDep = Annotated[
    object, Security(HTTPBearer(auto_error=False, scheme_name="key", description="A key, `dk_<id>.<secret>`."))
]


# Coroutines, though they wait for nothing: FastAPI sends a plain function to a thread, which takes longer than the rest
# of a poll.
async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def _caller(request: Request, _: _KeyDep) -> Caller:
    # Who it is, the gatekeeper has found out.
    caller: Caller | None = request.state.caller
    if caller is None:
        raise unauthorized()
    return caller


ServicesDep = Annotated[Services, Depends(_services)]
CallerDep = Annotated[Caller, Depends(_caller)]
TenantQuery = Annotated[
    str | None,
    Query(description="Whose job it is, where it is not the key's own tenant's: for keys with the role `admin`."),
]


def named_tenant(caller: Caller, tenant: str | None) -> str:
    """Give the tenant to act for. Raises ForbiddenError, whether or not there is such a tenant."""
    if tenant is None or tenant == caller.tenant:
        return caller.tenant
    if Role.ADMIN not in caller.roles:
        raise ForbiddenError("forbidden", "acting for another tenant needs a key with the role admin", param="tenant")
    return tenant


async def _tenant(caller: CallerDep, tenant: TenantQuery = None) -> str:
    return named_tenant(caller, tenant)


async def _base_url(request: Request, services: ServicesDep) -> str:
    return (services.settings.public_base_url or str(request.base_url)).rstrip("/")


TenantDep = Annotated[str, Depends(_tenant)]
BaseUrlDep = Annotated[str, Depends(_base_url)]
