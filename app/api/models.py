"""/v1/models: what can be asked for."""

from http import HTTPStatus

from fastapi import APIRouter

from app.api.deps import ServicesDep
from app.api.views import ModelDefaults, ModelList, ModelView
from app.errors import documented

router = APIRouter(tags=["models"])


@router.get("/v1/models", summary="List models", responses=documented(HTTPStatus.SERVICE_UNAVAILABLE))
async def list_models(services: ServicesDep) -> ModelList:
    """In OpenAI's list shape, with each model's limits, defaults, recommended ranges and live workers."""
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
                **{name: getattr(card, name) for name in ("family", "description", "license", "guidance")},
                limits=card.limits,
                recommended=card.recommended,
            )
            for card in services.catalog.values()
        ]
    )
