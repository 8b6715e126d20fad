"""A request of any of the APIs becomes a queued job."""

from app.advice.advice import Advice
from app.api.deps import Services
from app.api.resolve import to_job
from app.api.schemas import ImageRequest
from app.catalog.catalog import ModelCard, UnknownModelError
from app.errors import NotFoundError
from app.jobs.schema import ImageJob


async def accept(
    services: Services, tenant: str, request: ImageRequest, api: str
) -> tuple[ImageJob, tuple[Advice, ...]]:
    """Resolve, weigh and queue it. api: through which of them it came, for the metrics.

    Raises InvalidRequestError, NotFoundError, or what the queue raises.
    """
    settings = services.settings
    card = find_card(services, request.model)
    job = to_job(
        request,
        card,
        tenant,
        max_prompt_chars=settings.max_prompt_chars,
        max_images=settings.max_images_per_request,
    )
    warnings = await services.advisor.advise(job, card)
    await services.queue.submit(job)
    services.metrics.jobs_submitted.labels(job.model, api).inc()
    return job, warnings


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
