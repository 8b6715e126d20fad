"""What routes are handed. All of it is built once, in create_app."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.advice.advisor import Advisor
from app.api.chosen_models import ChosenModels
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
    advisor: Advisor
    chosen_models: ChosenModels


# Coroutines, though they wait for nothing: FastAPI sends a plain function to a thread, which takes longer than the rest
# of a poll.
async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def _tenant() -> str:
    # There are no API keys yet: everyone who reaches the server is one tenant.
    return "default"


ServicesDep = Annotated[Services, Depends(_services)]


async def _base_url(request: Request, services: ServicesDep) -> str:
    return (services.settings.public_base_url or str(request.base_url)).rstrip("/")


TenantDep = Annotated[str, Depends(_tenant)]
BaseUrlDep = Annotated[str, Depends(_base_url)]
