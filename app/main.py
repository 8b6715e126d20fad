"""The gateway's application: every object is built here, once, and handed down."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from app.api import content, health, images, models
from app.api.deps import Services
from app.api.handlers import add_error_handlers
from app.catalog.catalog import Catalog
from app.errors import ANY_OTHER_ERROR
from app.housekeeping import Housekeeping
from app.jobs.queue import JobQueue
from app.jobs.room import StoreRoom
from app.jobs.scripts import connect
from app.jobs.store import open_store
from app.jobs.upkeep import Upkeep
from app.metrics import GatewayMetrics
from app.middleware import RequestMiddleware
from app.queue_watch import QueueWatch
from app.settings import GatewaySettings


def create_app(settings: GatewaySettings) -> FastAPI:
    """Build the gateway. Raises CatalogError or StoreError; a queue that is away is waited for, not an error."""
    catalog = Catalog.load()
    redis = connect(settings.redis_url)
    queue = JobQueue(
        redis,
        max_queued=settings.max_queued,
        max_open=settings.max_open,
        max_attempts=settings.max_attempts,
        max_crashes=settings.max_crashes,
        wait_for_disk=settings.wait_for_disk,
    )
    store = open_store(settings.store_url)
    services = Services(
        settings=settings,
        catalog=catalog.only(settings.models) if settings.models else catalog,
        queue=queue,
        watch=QueueWatch(queue),
        store=store,
        room=StoreRoom(store, settings.min_free_mib),
        metrics=GatewayMetrics(CollectorRegistry()),
    )

    housekeeping = Housekeeping(
        queue, Upkeep(redis), services.watch, services.store, services.metrics, settings.keep_pictures_s
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        keeping = asyncio.create_task(housekeeping.run())
        try:
            yield
        finally:
            keeping.cancel()
            await redis.aclose()

    app = FastAPI(
        title="Darkroom",
        summary="Asynchronous image generation with Flux and Stable Diffusion 3",
        description="Submit a prompt, poll the job, fetch the picture. Every error has the same body.",
        version=version("darkroom-server"),
        lifespan=lifespan,
        responses=ANY_OTHER_ERROR,
        redirect_slashes=False,
    )
    app.state.services = services
    for module in (images, content, models, health):
        app.include_router(module.router)
    add_error_handlers(app, settings.max_body_bytes)
    app.add_middleware(RequestMiddleware, metrics=services.metrics, max_body_bytes=settings.max_body_bytes)
    return app
