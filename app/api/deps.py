"""What routes are handed. All of it is built once, in create_app."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.catalog.catalog import Catalog
from app.jobs.queue import JobQueue
from app.jobs.store import ImageStore
from app.metrics import GatewayMetrics
from app.settings import GatewaySettings


@dataclass(frozen=True, slots=True)
class Services:
    """The gateway's objects, kept on `app.state.services`."""

    settings: GatewaySettings
    catalog: Catalog
    queue: JobQueue
    store: ImageStore
    metrics: GatewayMetrics


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def _tenant() -> str:
    # There are no API keys yet: everyone who reaches the server is one tenant.
    return "default"


def _base_url(request: Request) -> str:
    return (_services(request).settings.public_base_url or str(request.base_url)).rstrip("/")


ServicesDep = Annotated[Services, Depends(_services)]
TenantDep = Annotated[str, Depends(_tenant)]
BaseUrlDep = Annotated[str, Depends(_base_url)]
