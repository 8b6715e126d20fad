"""A request of any of the APIs becomes a queued job."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header

from app.access.caller import Caller
from app.api.deps import CallerDep, Services, TenantDep
from app.api.links import Links, LinksDep
from app.api.resolve import body_sha256, to_job
from app.api.schemas import ImageRequest
from app.api.webhooks import hook_of
from app.catalog.catalog import ModelCard, UnknownModelError
from app.errors import NotFoundError, UnavailableError
from app.jobs.queue import Idempotency

_ROOM_AFTER_S = 10  # somebody must make it


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks for images, and by which name of the request."""

    caller: Caller
    tenant: str
    links: Links
    idempotency_key: str | None


@dataclass(frozen=True, slots=True)
class Accepted:
    """is_new: False where the same request came under the same idempotency key before."""

    job_id: str
    is_new: bool


async def _asker(
    caller: CallerDep,
    tenant: TenantDep,
    links: LinksDep,
    idempotency_key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            min_length=1,
            max_length=255,
            pattern=r"^[!-~]+$",
            description="Your own name for this request, new for each one, such as a UUID.",
        ),
    ] = None,
) -> Asker:
    return Asker(caller, tenant, links, idempotency_key)


AskerDep = Annotated[Asker, Depends(_asker)]


async def accept(
    services: Services, asker: Asker, request: ImageRequest, api: str, *, cancel_after_s: float | None = None
) -> Accepted:
    """Resolve, weigh and queue it. api: through which of them it came, for the metrics.

    cancel_after_s: it is canceled unless it is finished by then. Raises ApiError, or what the queue raises.
    """
    settings = services.settings
    card = find_card(services, request.model)
    job = to_job(
        request,
        card,
        asker.tenant,
        max_prompt_chars=settings.max_prompt_chars,
        max_images=settings.max_images_per_request,
    )
    job = job.model_copy(update={"warnings": await services.advisor.advise(job, card)})
    if await services.room.is_full():
        message = "The image store's disk is full; try again later."
        raise UnavailableError("storage_full", message, headers={"Retry-After": str(_ROOM_AFTER_S)})
    hook = hook_of(request, job, asker.links.job(job.id), settings)
    await services.quotas.charge(asker.caller, job)
    if hook is not None:
        await services.outbox.register(hook)
    key = asker.idempotency_key
    idempotency = None if key is None else Idempotency(key, body_sha256(request))
    job_id = await services.queue.submit(
        job, cost_s=services.watch.cost_s(job, card), idempotency=idempotency, cancel_after_s=cancel_after_s
    )
    is_new = job_id == job.id
    services.metrics.jobs_submitted.labels(job.model, api).inc(is_new)
    return Accepted(job_id, is_new)


def find_card(services: Services, name: str | None) -> ModelCard:
    """Find a model by its name; none: the first. Raises NotFoundError."""
    catalog = services.catalog
    try:
        return catalog[next(iter(catalog)) if name is None else name]
    except UnknownModelError as error:
        raise NotFoundError(
            "model_not_found",
            f"there is no model {error.name[:128]!r} here; known: {', '.join(error.known)}",
            param="model",
        ) from None
