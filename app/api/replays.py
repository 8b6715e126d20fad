"""What came before under an Idempotency-Key: looked for first, so that a replay is neither weighed nor charged.

JobQueue.submit decides: it looks again, in the script that puts the job in line.
"""

from redis.asyncio import Redis

from app.jobs.errors import KeyReusedError
from app.jobs.keys import PREFIX
from app.jobs.queue import Idempotency
from app.jobs.scripts import translated_errors


class Replays:
    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def find(self, tenant: str, idempotency: Idempotency) -> str | None:
        """Give the id of the job that this request made before. Raises KeyReusedError or QueueUnavailableError."""
        with translated_errors():
            job_id, body = await self._redis.hmget(f"{PREFIX}idem:{tenant}:{idempotency.key}", ["id", "body"])
        if job_id is None:
            return None
        if body != idempotency.body_sha256:
            raise KeyReusedError("this idempotency key came with another request before")
        return str(job_id)
