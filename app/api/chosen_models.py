"""Which model a tenant's AUTOMATIC1111 clients draw with: in that API it is a state of the server."""

from redis.asyncio import Redis

from app.jobs.keys import PREFIX
from app.jobs.scripts import translated_errors


class ChosenModels:
    """Kept in Redis, so that every gateway draws with the same one. Raises QueueUnavailableError."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def get(self, tenant: str) -> str | None:
        with translated_errors():
            chosen = await self._redis.get(_key(tenant))
        return None if chosen is None else str(chosen)

    async def set(self, tenant: str, model: str) -> None:
        with translated_errors():
            await self._redis.set(_key(tenant), model)


def _key(tenant: str) -> str:
    return f"{PREFIX}sdapi_model:{tenant}"
