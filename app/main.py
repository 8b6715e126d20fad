"""The gateway's application: every object is built here, once, and handed down."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import structlog
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from app.api import content, health, images, models
from app.api.deps import Services
from app.api.handlers import add_error_handlers
from app.catalog.catalog import Catalog
from app.errors import ANY_OTHER_ERROR
from app.jobs.errors import QueueError
from app.jobs.queue import JobQueue
from app.jobs.room import StoreRoom
from app.jobs.scripts import connect
from app.jobs.store import ImageStore, StoreError, open_store
from app.metrics import GatewayMetrics
from app.middleware import RequestMiddleware
from app.settings import GatewaySettings

log = structlog.get_logger()

_TICK_EVERY_S = 1.0
_TIDY_EVERY_S = 3600.0
# No picture takes a day to be written, nor are clocks a day apart.
_HALF_WRITTEN_FOR_S = 86_400.0


def create_app(settings: GatewaySettings) -> FastAPI:
    """Build the gateway. Raises CatalogError or StoreError; a queue that is away is waited for, not an error."""
    catalog = Catalog.load()
    redis = connect(settings.redis_url)
    store = open_store(settings.store_url)
    services = Services(
        settings=settings,
        catalog=catalog.only(settings.models) if settings.models else catalog,
        queue=JobQueue(redis, max_queued=settings.max_queued),
        store=store,
        room=StoreRoom(store, settings.min_free_mib),
        metrics=GatewayMetrics(CollectorRegistry()),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loops = [asyncio.create_task(_tick(services.queue)), asyncio.create_task(_tidy(services.store))]
        try:
            yield
        finally:
            for loop in loops:
                loop.cancel()
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


async def _tick(queue: JobQueue) -> None:
    """Take back the jobs of dead workers, also while no worker is left to do it."""
    while True:
        try:
            await queue.tick()
        except QueueError as error:
            log.warning("queue_unavailable", error=str(error))
        except Exception:
            # Whatever it was, ticking goes on: if it died, nobody would see, and jobs of dead workers would stay lost.
            log.exception("tick_failed")
        await asyncio.sleep(_TICK_EVERY_S)


async def _tidy(store: ImageStore) -> None:
    """Delete what killed processes left half-written, so that it does not fill the disk for ever."""
    while True:
        try:
            deleted = await store.tidy(_HALF_WRITTEN_FOR_S)
            if deleted:
                log.info("half_written_files_deleted", files=deleted)
        except StoreError as error:
            log.warning("store_not_tidied", error=str(error))
        await asyncio.sleep(_TIDY_EVERY_S)
