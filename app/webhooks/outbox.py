"""What is still to be told, on the queue's server: a gateway that restarts loses none of it.

| key        | type | holds                                                                | lives                   |
|------------|------|----------------------------------------------------------------------|-------------------------|
| hook:<id>  | hash | url events self_url tenant misses of a job; body attempts once ended  | until told, or 30 days  |
| hooks:open | zset | job id -> server ms when to look whether it has ended                | until it has            |
| hooks:due  | zset | job id -> server ms when to tell                                     | until told or given up  |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import cast

from redis.asyncio import Redis
from redis.typing import EncodableT, FieldT

from app.jobs.keys import PREFIX
from app.jobs.scripts import translated_errors

_KEEP_S = 30 * 86_400
_OPEN, _DUE = f"{PREFIX}hooks:open", f"{PREFIX}hooks:due"


@dataclass(frozen=True, slots=True)
class Hook:
    """What a job's author asked to be told. body: None until the job has ended."""

    job_id: str
    tenant: str
    url: str
    events: tuple[str, ...]
    self_url: str
    body: str | None = None
    attempts: int = 0


class Outbox:
    """Every method raises QueueUnavailableError or StorageFullError."""

    def __init__(self, redis: Redis) -> None:
        folder = resources.files("app.webhooks") / "lua"
        self._redis = redis
        self._take = redis.register_script((folder / "take.lua").read_text())
        self._delay = redis.register_script((folder / "delay.lua").read_text())

    async def register(self, hook: Hook) -> None:
        """Keep what a job's author wants to be told, before the job is queued."""
        fields: dict[FieldT, EncodableT] = {
            "tenant": hook.tenant,
            "url": hook.url,
            "events": ",".join(hook.events),
            "self_url": hook.self_url,
        }
        with translated_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hset(_hook(hook.job_id), mapping=fields)
                pipe.expire(_hook(hook.job_id), _KEEP_S)
                pipe.zadd(_OPEN, {hook.job_id: 0})
                await pipe.execute()

    async def read(self, job_id: str) -> Hook | None:
        with translated_errors():
            fields = cast(dict[str, str], await self._redis.hgetall(_hook(job_id)))
        if not fields:
            return None
        return Hook(
            job_id=job_id,
            tenant=fields["tenant"],
            url=fields["url"],
            events=tuple(filter(None, fields["events"].split(","))),
            self_url=fields["self_url"],
            body=fields.get("body"),
            attempts=int(fields.get("attempts", 0)),
        )

    async def post(self, job_id: str, body: str) -> None:
        """The job has ended: tell it, with this body in every attempt. Again is fine."""
        with translated_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hsetnx(_hook(job_id), "body", body)
                pipe.zadd(_DUE, {job_id: 0}, nx=True)
                pipe.zrem(_OPEN, job_id)
                await pipe.execute()

    async def miss(self, job_id: str) -> int:
        """There is no such job: give how many times that was so."""
        with translated_errors():
            return int(await self._redis.hincrby(_hook(job_id), "misses", 1))

    async def forget(self, job_id: str) -> None:
        """Told, given up, or nobody wants to know."""
        with translated_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.delete(_hook(job_id))
                pipe.zrem(_DUE, job_id)
                pipe.zrem(_OPEN, job_id)
                await pipe.execute()

    async def try_later(self, job_id: str, delay_s: float) -> None:
        """An attempt failed."""
        with translated_errors():
            await self._redis.hincrby(_hook(job_id), "attempts", 1)
            await self._delay(keys=[PREFIX], args=["hooks:due", job_id, round(delay_s * 1000)])

    async def take_open(self, most: int, *, again_s: float) -> Sequence[str]:
        """Jobs to look at; each comes again after `again_s`, to whichever gateway asks then."""
        return await self._taken("hooks:open", most, again_s)

    async def take_due(self, most: int, *, lease_s: float) -> Sequence[str]:
        """Jobs to tell of, which no other gateway is given for `lease_s`."""
        return await self._taken("hooks:due", most, lease_s)

    async def _taken(self, name: str, most: int, again_s: float) -> Sequence[str]:
        with translated_errors():
            taken: Sequence[str] = await self._take(keys=[PREFIX], args=[name, most, round(again_s * 1000)])
        return taken


def _hook(job_id: str) -> str:
    return f"{PREFIX}hook:{job_id}"
