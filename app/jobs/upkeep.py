"""What keeps the queue in order over the weeks: expiry, orphaned bytes, the dead, tenants' shares."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from redis.asyncio import Redis

from app.jobs.keys import PREFIX
from app.jobs.scripts import Scripts, translated_errors


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
        with translated_errors():
            given = await self._redis.set(f"{PREFIX}turn:{what}", "taken", nx=True, px=round(every_s * 900))
        return bool(given)

    async def expire(self, *, pictures_s: float, record_s: float, most: int = 100) -> list[str]:
        """Let jobs go that ended long ago, and return those whose pictures are to be deleted now.

        pictures_s: since the end of the job. record_s: that its record stays after that, to say that they are gone.
        """
        ids = await self._run("expire", round(pictures_s * 1000), round(record_s * 1000), most)
        return list(ids)

    async def holders(self, job_ids: Sequence[str]) -> list[Holder | None]:
        """Ask who these are, for whom there are bytes; None: nobody, any more."""
        if not job_ids:
            return []
        return [
            Holder(Hold(row[0]), row[1], row[2] == 1) if row else None for row in await self._run("holders", *job_ids)
        ]

    async def dead(self, most: int = 1000) -> list[tuple[str, str]]:
        """List jobs that were given up, as (id, tenant), the latest first."""
        reply = await self._run("dead", most)
        return list(zip(reply[::2], reply[1::2], strict=True))

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
