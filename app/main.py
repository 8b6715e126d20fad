"""The gateway's application: every object is built here, once, and handed down."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import structlog
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from app.advice.advisor import Advisor
from app.advice.prompt_tokenizers import PromptTokenizers
from app.api import a1111, content, health, hf, images, models, openai
from app.api.chosen_models import ChosenModels
from app.api.deps import Services
from app.api.handlers import add_error_handlers
from app.catalog.catalog import Catalog
from app.errors import ANY_OTHER_ERROR
from app.jobs.errors import QueueError
from app.jobs.queue import JobQueue
from app.jobs.scripts import connect
from app.jobs.store import open_store
from app.metrics import GatewayMetrics
from app.middleware import RequestMiddleware
from app.settings import GatewaySettings

log = structlog.get_logger()

_TICK_EVERY_S = 1.0


def create_app(settings: GatewaySettings) -> FastAPI:
    """Build the gateway. Raises CatalogError or StoreError; a queue that is away is waited for, not an error."""
    catalog = Catalog.load()
    redis = connect(settings.redis_url)
    services = Services(
        settings=settings,
        catalog=catalog.only(settings.models) if settings.models else catalog,
        queue=JobQueue(redis, max_queued=settings.max_queued),
        store=open_store(settings.store_url),
        metrics=GatewayMetrics(CollectorRegistry()),
        advisor=Advisor(PromptTokenizers(settings.model_folders)),
        chosen_models=ChosenModels(redis),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        ticking = asyncio.create_task(_tick(services.queue))
        try:
            yield
        finally:
            ticking.cancel()
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
    for module in (images, content, models, openai, hf, a1111, health):
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
