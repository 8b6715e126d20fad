"""/v1/models: what can be asked for."""

from collections.abc import Sequence
from http import HTTPStatus
from statistics import fmean

from fastapi import APIRouter

from app.api.deps import ServicesDep
from app.api.views import ModelDefaults, ModelList, ModelView, StepTimeView
from app.catalog.catalog import ModelCard
from app.errors import documented
from app.jobs.cost import step_cost_s, step_times
from app.jobs.schema import WorkerInfo

router = APIRouter(tags=["models"])


@router.get("/v1/models", summary="List models", responses=documented(HTTPStatus.SERVICE_UNAVAILABLE))
async def list_models(services: ServicesDep) -> ModelList:
    """In OpenAI's list shape, with each model's limits, defaults, recommended ranges, live workers and step times."""
    stats = await services.queue.stats()
    return ModelList(
        data=[
            ModelView(
                id=card.name,
                created=0,
                owned_by=(card.source.repo or "darkroom").split("/")[0],
                revision=card.source.revision,
                defaults=ModelDefaults(**card.defaults.model_dump()),
                workers_live=stats.workers_live(card.name),
                step_times=[
                    StepTimeView(**each.model_dump(exclude={"model"}))
                    for each in step_times(stats.workers)
                    if each.model == card.name
                ],
                usd_per_image=_usd_per_image(card, stats.workers),
                **{name: getattr(card, name) for name in ("family", "description", "license", "guidance")},
                limits=card.limits,
                recommended=card.recommended,
            )
            for card in services.catalog.values()
        ]
    )


def _usd_per_image(card: ModelCard, workers: Sequence[WorkerInfo]) -> float | None:
    """The mean over the workers that know what they cost and what a step takes them."""
    defaults = card.defaults
    rows = card.rows(defaults.guidance_scale, 1.0)
    prices = [
        worker.usd_per_hour
        / 3600
        * step_cost_s(card.name, defaults.width * defaults.height, rows, worker.step_times)
        * defaults.num_inference_steps
        for worker in workers
        if worker.usd_per_hour and any(each.model == card.name for each in worker.step_times)
    ]
    return round(fmean(prices), 8) if prices else None
