"""How much a tenant may ask for: image requests a minute, and megapixel-steps an hour, on the queue's server.

Only asking for images counts; reading is free. A sliding window counts both, weighted between this window and the one
before. The counters are a tenant's, whichever of its keys is used.

What is refused is not counted: what was taken for it is given back. Until then, which is as long as the queue takes to
answer, another request of that tenant may be refused for it; taking only afterwards would let all through that come at
once.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.asyncio import Redis

from app.access.caller import Caller
from app.errors import ForbiddenError, InvalidRequestError, RateLimitedError
from app.jobs.errors import QueueError
from app.jobs.keys import PREFIX
from app.jobs.schema import ImageJob
from app.jobs.scripts import translated_errors
from app.metrics import GatewayMetrics
from app.settings import GatewaySettings

_MEGA = 1_000_000
_NO_LIMIT = 2**53  # the largest that Lua counts exactly


class _RequestsPerMinute(RateLimitItemPerMinute):
    def key_for(self, *identifiers: bytes | str | int | float) -> str:
        # The library's own name for it holds the limit: two keys of one tenant with different limits would not share.
        return f"requests/{identifiers[0]!s}"


class _PixelStepsPerHour(RateLimitItemPerHour):
    def key_for(self, *identifiers: bytes | str | int | float) -> str:
        return f"pixel-steps/{identifiers[0]!s}"


@dataclass(frozen=True, slots=True)
class Charge:
    """What was counted for one job: of each limit, how much."""

    tenant: str
    taken: Sequence[tuple[RateLimitItem, int]]


class Quotas:
    def __init__(self, redis: Redis, settings: GatewaySettings, metrics: GatewayMetrics) -> None:
        # On our own client's connections, with its timeouts and without silent retries.
        self._storage = RedisStorage(
            "async+redis://",
            implementation="redispy",
            key_prefix=f"{PREFIX}limit",
            connection_pool=redis.connection_pool,  # type: ignore[arg-type]
        )
        self._limiter = SlidingWindowCounterRateLimiter(self._storage)
        self._settings = settings
        self._metrics = metrics

    async def charge(self, caller: Caller, job: ImageJob) -> Charge:
        """Count this job against its tenant's limits, before it is queued: against all of them or none.

        Raises ForbiddenError, InvalidRequestError or RateLimitedError, and QueueUnavailableError.
        """
        if not caller.may_ask_for(job.priority):
            raise ForbiddenError(
                "forbidden", f"your key may ask for the priority {caller.max_priority} at most", param="priority"
            )
        settings = self._settings
        cost = pixel_steps(job)
        per_hour = caller.megapixel_steps_per_hour or settings.megapixel_steps_per_hour
        most = min(settings.max_request_megapixel_steps, per_hour or settings.max_request_megapixel_steps)
        if cost > most * _MEGA:
            raise InvalidRequestError(
                "over_budget",
                f"width x height x steps x n is {cost / _MEGA:.3f} megapixel-steps; one request may take {most}",
            )
        per_minute = caller.requests_per_minute or settings.requests_per_minute
        taken: list[tuple[RateLimitItem, int]] = []
        if per_minute is not None:
            requests = _RequestsPerMinute(per_minute)
            await self._take(requests, job.tenant, 1, "requests", f"{per_minute} requests a minute")
            taken.append((requests, 1))
        if per_hour is not None:
            budget = _PixelStepsPerHour(per_hour * _MEGA)
            try:
                await self._take(budget, job.tenant, cost, "budget", f"{per_hour} megapixel-steps an hour")
            except RateLimitedError:
                await self.give_back(Charge(job.tenant, taken))
                raise
            taken.append((budget, cost))
        return Charge(job.tenant, taken)

    async def give_back(self, charge: Charge) -> None:
        """Nothing came of it. Where the server is away, it stays counted: the limits are no promise to the pixel."""
        with suppress(QueueError), translated_errors():
            for item, cost in charge.taken:
                # The library has no word for it; its script adds what it is given, if that keeps within the limit.
                await self._storage.acquire_sliding_window_entry(
                    item.key_for(charge.tenant), _NO_LIMIT, item.get_expiry(), -cost
                )

    async def _take(self, item: RateLimitItem, tenant: str, cost: int, reason: str, said: str) -> None:
        with translated_errors():
            if await self._limiter.hit(item, tenant, cost=cost):
                return
            window = await self._storage.get_sliding_window(item.key_for(tenant), item.get_expiry())
        self._metrics.rate_limited.labels(reason).inc()
        # More than the wait, not as much: at that very moment the count still rounds to one too many.
        seconds = math.floor(wait_s(*window, window_s=item.get_expiry(), limit=item.amount, cost=cost)) + 1
        raise RateLimitedError(
            "rate_limited",
            f"the limit is {said}; try again in {seconds} seconds",
            headers={"Retry-After": str(seconds)},
        )


def pixel_steps(job: ImageJob) -> int:
    return job.width * job.height * job.num_inference_steps * job.n


def wait_s(
    previous: int, previous_left_s: float, current: int, current_left_s: float, *, window_s: int, limit: int, cost: int
) -> float:
    """Seconds until `cost` fits, if nothing else is taken meanwhile; at once is 0. cost: at most `limit`.

    The count of the window before fades evenly over `previous_left_s`. `current_left_s` is two windows when the current
    one begins; with one window left it is over, and fades in its turn.
    """
    room = limit - cost - current
    if room >= 0:
        return _faded_s(previous, previous_left_s, room, window_s)
    return current_left_s - window_s + _faded_s(current, window_s, limit - cost, window_s)


def _faded_s(count: int, left_s: float, room: int, window_s: int) -> float:
    """Seconds until a fading count, which ends in `left_s`, rounds down to `room`."""
    if count == 0:
        return 0.0
    # The count is floor(count * left / window): it must fall below room + 1.
    return max(0.0, left_s - (room + 1) * window_s / count)
