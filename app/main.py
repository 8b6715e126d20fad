"""The gateway's application: every object is built here, once, and handed down."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from importlib.metadata import version

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from app.access.key_cache import KeyCache
from app.access.key_store import KeyStore
from app.access.url_secret import UrlSecret
from app.advice.advisor import Advisor
from app.advice.prompt_tokenizers import PromptTokenizers
from app.api import a1111, content, events, health, hf, images, models, openai
from app.api.chosen_models import ChosenModels
from app.api.deps import Services
from app.api.gatekeeper import Gatekeeper
from app.api.handlers import add_error_handlers
from app.api.quotas import Quotas
from app.catalog.catalog import Catalog
from app.changes import Changes
from app.errors import ANY_OTHER_ERROR, documented
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
from app.webhooks.courier import Courier
from app.webhooks.outbox import Outbox
from app.webhooks.sender import Sender
from app.webhooks.target import resolve_by_system


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
    metrics = GatewayMetrics(CollectorRegistry())
    keys = KeyCache(KeyStore(redis), time.monotonic)
    url_secret = UrlSecret(redis, settings.url_secret.get_secret_value() if settings.url_secret else None)
    services = Services(
        settings=settings,
        catalog=catalog.only(settings.models) if settings.models else catalog,
        queue=queue,
        watch=QueueWatch(queue),
        changes=Changes(queue),
        upkeep=Upkeep(redis),
        store=store,
        room=StoreRoom(store, settings.min_free_mib),
        metrics=metrics,
        quotas=Quotas(redis, settings, metrics),
        url_secret=url_secret,
        outbox=Outbox(redis),
        advisor=Advisor(PromptTokenizers(settings.model_folders)),
        chosen_models=ChosenModels(redis),
    )

    housekeeping = Housekeeping(
        queue, services.upkeep, services.watch, services.store, services.metrics, settings.keep_pictures_s
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        keeping = asyncio.create_task(housekeeping.run())
        async with AsyncExitStack() as running:
            running.push_async_callback(redis.aclose)
            running.callback(keeping.cancel)
            running.callback(asyncio.create_task(services.changes.run()).cancel)
            if settings.webhooks:
                sender = Sender(resolve_by_system, allow_private=settings.webhook_allow_private)
                running.push_async_callback(sender.close)
                courier = Courier(services.outbox, sender, services.queue, url_secret, metrics.webhook_deliveries)
                running.callback(asyncio.create_task(courier.run()).cancel)
            yield

    app = FastAPI(
        title="Darkroom",
        summary="Asynchronous image generation with Flux and Stable Diffusion 3",
        description="Submit a prompt, follow the job, fetch the picture. Every error has the same body.",
        version=version("darkroom-server"),
        lifespan=lifespan,
        responses=ANY_OTHER_ERROR,
        redirect_slashes=False,
        openapi_url="/openapi.json" if settings.admin_port is None else None,
    )
    app.state.services = services
    for module in (images, content, events, models, openai, hf, a1111):
        app.include_router(module.router, responses=documented(HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN))
    app.include_router(health.router)
    if settings.admin_port is None:
        app.include_router(health.metrics_router, responses=documented(HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN))
    add_error_handlers(app, settings.max_body_bytes)
    app.add_middleware(Gatekeeper, keys=keys, always_asks=settings.always_asks_for_keys)
    # Added last, so outermost: a refusal has an id and is counted too.
    app.add_middleware(
        RequestMiddleware,
        metrics=metrics,
        max_body_bytes=settings.max_body_bytes,
        body_timeout_s=settings.body_timeout_s,
    )
    return app
