"""What keeps the queue in order over the weeks: expiry, orphaned bytes, the dead, tenants' shares."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from redis.asyncio import Redis

from app.jobs.keys import PREFIX
from app.jobs.scripts import Scripts, translated_errors

_PAGE = 1000


class Hold(StrEnum):
    """What a job still needs bytes in the store for."""

    OPEN = "open"
    COMPLETED = "completed"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Holder:
    """A job as the owner of bytes. token: the last claim's; expired: its pictures have had their time."""

    hold: Hold
    token: str
    expired: bool


@dataclass(frozen=True, slots=True)
class Expired:
    """job_ids: whose pictures are to be deleted now. forgotten: how many records had their time."""

    job_ids: list[str]
    forgotten: int


class Purged(StrEnum):
    OK = "OK"
    OPEN = "OPEN"
    MISSING = "MISSING"


class Upkeep:
    """Every method raises QueueUnavailableError when the server cannot be reached."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._run = Scripts(redis).run

    async def my_turn(self, what: str, every_s: float) -> bool:
        """Whether nobody did this within the last seconds; who asks, does it."""
        return bool(await self._run("turn", what, round(every_s * 900)) == 1)

    async def identity(self) -> str:
        """Tell this queue from others: a word that is made once, and kept where the jobs are."""
        key = PREFIX + "id"
        with translated_errors():
            await self._redis.set(key, secrets.token_hex(16), nx=True)
            return str(await self._redis.get(key))

    async def expire(self, *, pictures_s: float, record_s: float, most: int = 100) -> Expired:
        """Let some jobs go that ended long ago; again, until there are none.

        pictures_s: since the end of the job. record_s: that its record stays after that, to say that they are gone.
        """
        forgotten, *job_ids = await self._run("expire", round(pictures_s * 1000), round(record_s * 1000), most)
        return Expired(job_ids, forgotten)

    async def holders(self, job_ids: Sequence[str]) -> list[Holder | None]:
        """Ask who these are, for whom there are bytes; None: nobody, any more."""
        if not job_ids:
            return []
        return [
            Holder(Hold(row[0]), row[1], row[2] == 1) if row else None for row in await self._run("holders", *job_ids)
        ]

    async def dead(self) -> list[tuple[str, str]]:
        """List all jobs that were given up, as (id, tenant), the latest first."""
        found: list[tuple[str, str]] = []
        while reply := await self._run("dead", len(found), _PAGE):
            found += zip(reply[::2], reply[1::2], strict=True)
        return found

    async def revive(self, job_ids: Sequence[str]) -> int:
        """Give dead jobs another try, each alone on a worker; say how many of these there were."""
        return int(await self._run("revive", *job_ids)) if job_ids else 0

    async def purge(self, tenant: str, job_ids: Sequence[str]) -> list[Purged]:
        """Forget jobs that are over. Their bytes are the caller's to delete, or the sweep's."""
        return [Purged(word) for word in await self._run("purge", tenant, *job_ids)] if job_ids else []

    async def weigh(self, tenant: str, weight: float) -> None:
        """Give a tenant this share of the workers, against 1 for everybody else. Raises ValueError."""
        if not 0.001 <= weight <= 1000:
            raise ValueError(f"a tenant's weight is between 0.001 and 1000, not {weight}")
        await self._run("weigh", tenant, repr(float(weight)))
