"""How soon the jobs of a worker that died or froze are in other hands: from the queue's leases and the workers' logs.

A lease that ended must be noticed, and its job claimed by an idle worker, within two seconds. Time in which no worker
of the lane was idle does not count, and a job that waited while Valkey was away is not counted at all.
"""

import bisect
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.system.chaos.job_hashes import job_hashes, leases
from tests.system.chaos.process import Span

GATE_S = 2.0
_RECOVERS_S = 2.0  # from Valkey's start until everybody has found it again


@dataclass(frozen=True, slots=True)
class Held:
    """A job in the hands of a worker when that was killed or frozen. Times are time.time()'s."""

    job_id: str
    life: str
    lane: str
    lost_s: float
    lease_ends_s: float


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """beyond_lease_s: from the end of the lease to the next claim, less the time in which nobody was idle."""

    held: Held
    claimed_s: float
    beyond_lease_s: float

    def __str__(self) -> str:
        held = self.held
        return (
            f"{held.job_id}, held by {held.life}, waited {self.beyond_lease_s:.2f} s for an idle worker: lost at"
            f" {held.lost_s:.2f}, lease to {held.lease_ends_s:.2f}, claimed at {self.claimed_s:.2f}"
        )


async def held_by(redis: Redis, life: str) -> list[Held]:
    """What a worker holds that has just been killed or frozen; nothing while Valkey is away."""
    lost_s = time.time()
    try:
        ends_s = await leases(redis)
        jobs = await job_hashes(redis, list(ends_s), "worker", "lane")
    except (RedisError, OSError):
        return []
    return [
        Held(job_id, life, job["lane"] or "", lost_s, lease_ends_s)
        for (job_id, lease_ends_s), job in zip(ends_s.items(), jobs, strict=True)
        if job["worker"] == life
    ]


def reclaims(
    held: Sequence[Held],
    claims: Mapping[str, Sequence[float]],
    idle: Mapping[str, Sequence[Span]],
    valkey_up: Sequence[Span],
) -> Iterator[Reclaimed]:
    """claims: job -> when it was claimed, sorted. idle: lane -> when a worker of it had nothing to do."""
    for lost in held:
        times = claims.get(lost.job_id, ())
        place = bisect.bisect(times, lost.lost_s)
        if place == len(times):
            continue  # canceled meanwhile, or its last word was under way
        claimed_s = times[place]
        if any(up.from_s + _RECOVERS_S <= lost.lost_s and claimed_s <= up.to_s for up in valkey_up):
            window = Span(lost.lease_ends_s, claimed_s)
            yield Reclaimed(lost, claimed_s, _covered(window, idle[lost.lane]))


def _covered(window: Span, spans: Sequence[Span]) -> float:
    """Seconds of the window in which at least one of the spans lies."""
    covered_s, until_s = 0.0, window.from_s
    for span in sorted(spans):
        from_s, to_s = max(span.from_s, until_s), min(span.to_s, window.to_s)
        if to_s > from_s:
            covered_s += to_s - from_s
            until_s = to_s
    return covered_s
