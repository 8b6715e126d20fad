"""/livez, /readyz, /metrics."""

from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field

from app.api.deps import ServicesDep
from app.errors import documented
from app.jobs.errors import QueueError

router = APIRouter(tags=["operations"])
metrics_router = APIRouter(tags=["operations"])  # which may have a port of its own


class Alive(BaseModel):
    status: Literal["alive"] = "alive"


class Ready(BaseModel):
    status: Literal["ready"] = "ready"
    redis: Literal["ok"] = "ok"
    workers: int = Field(description="Workers that said they live within the last seconds.")


@router.get("/livez", summary="Is the process alive?")
async def livez() -> Alive:
    return Alive()


@router.get("/readyz", summary="Can it take jobs?", responses=documented(HTTPStatus.SERVICE_UNAVAILABLE))
async def readyz(services: ServicesDep) -> Ready:
    """Ready means that jobs are accepted; they wait while `workers` is 0."""
    return Ready(workers=len((await services.queue.stats()).workers))


@metrics_router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus text format."}},
)
async def metrics(services: ServicesDep) -> Response:
    try:
        services.metrics.set_queue(await services.queue.stats(), list(services.catalog))
        services.metrics.queue_up.set(1)
    except QueueError:
        # The scrape must go on: that the queue is away is the very thing to show.
        services.metrics.queue_up.set(0)
    return Response(generate_latest(services.metrics.registry), media_type=CONTENT_TYPE_LATEST)
