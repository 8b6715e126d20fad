"""How soon the jobs of a worker that died or froze are in other hands: read from the queue's own records.

A lease that ended must be noticed and its job claimed by an idle worker within two seconds. Time in which no worker of
the lane was idle does not count, and a job that waited while Valkey was away is not counted at all.
"""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass

from redis.exceptions import RedisError

from tests.system.chaos.job_hashes import job_hashes, leases
from tests.system.chaos.stack import Stack

GATE_S = 2.0
_LOOK_EVERY_S = 0.05
_OPEN = ("queued", "in_progress")


@dataclass(slots=True)
class Held:
    """A job in the hands of a worker when that died or froze. Times are time.time()'s.

    unattended_s: since its lease ended, without an idle worker.
    """

    job_id: str
    life: str
    lane: str
    token: str
    lost_s: float
    lease_ends_s: float
    unattended_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """beyond_lease_s: from the end of the lease to the next claim, less the time in which nobody was idle."""

    held: Held
    claimed_s: float
    beyond_lease_s: float

    def __str__(self) -> str:
        held = self.held
        return (
            f"{held.job_id}, held by {held.life}, was claimed {self.beyond_lease_s:.2f} s after its lease, while there"
            f" was an idle worker: lost at {held.lost_s:.2f}, lease to {held.lease_ends_s:.2f},"
            f" unattended for {held.unattended_s:.2f} s, claimed at {self.claimed_s:.2f}"
        )


class Reclaims:
    """spoiled: jobs not measured, for Valkey's sake."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._waiting: dict[tuple[str, str], Held] = {}
        self._looked_s = time.time()
        self.reclaimed: list[Reclaimed] = []
        self.spoiled = 0

    async def watch(self, life: str) -> None:
        """Remember what a worker holds that has just been killed or frozen."""
        lost_s = time.time()
        try:
            ends_s = await leases(self._stack.redis)
            hashes = await job_hashes(self._stack.redis, list(ends_s), "worker", "lane", "token")
        except (RedisError, OSError):
            return  # Valkey was killed a moment ago
        for (job_id, lease_ends_s), job in zip(ends_s.items(), hashes, strict=True):
            if job["worker"] != life:
                continue
            held = Held(job_id, life, job["lane"] or "", job["token"] or "", lost_s, lease_ends_s)
            self._waiting[job_id, held.token] = held

    def valkey_died(self) -> None:
        self.spoiled += len(self._waiting)
        self._waiting.clear()

    async def run(self) -> None:
        """Look until canceled."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            try:
                await self._stack.look()
                if self._waiting:
                    await self._look()
            except (RedisError, OSError):
                self.valkey_died()
            self._looked_s = time.time()

    async def _look(self) -> None:
        waiting = list(self._waiting.items())
        redis = self._stack.redis
        held_now = await job_hashes(redis, list(await leases(redis)), "worker")
        busy = Counter(job["worker"] for job in held_now)
        jobs = await job_hashes(redis, [held.job_id for _, held in waiting], "state", "token", "finished_ms")
        now_s = time.time()
        for (key, held), job in zip(waiting, jobs, strict=True):
            if job["state"] != "queued" and job["token"] not in (held.token, None):
                # Whoever has it may have finished it between two looks.
                claimed_s = min(now_s, float(job["finished_ms"] or "inf") / 1000)
                late_s = max(0.0, claimed_s - held.lease_ends_s - held.unattended_s)
                self.reclaimed.append(Reclaimed(held, claimed_s, late_s))
                self._waiting.pop(key, None)
            elif job["state"] not in _OPEN:  # canceled, or its last word was under way
                self._waiting.pop(key, None)
            elif now_s > held.lease_ends_s and not self._anyone_idle(held.lane, busy):
                held.unattended_s += now_s - max(self._looked_s, held.lease_ends_s)

    def _anyone_idle(self, lane: str, busy: Counter[str | None]) -> bool:
        return any(self._stack.is_ready(worker) and not busy[worker.life] for worker in self._stack.workers[lane])
