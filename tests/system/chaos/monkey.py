"""Random troubles, from a seed: what, whom and when."""

import asyncio
import contextlib
import random
import time

from redis.exceptions import RedisError

from app.jobs.schema import ImageJob
from tests.system.chaos.job_hashes import job_hashes, leases
from tests.system.chaos.process import Process
from tests.system.chaos.reclaims import Reclaims
from tests.system.chaos.stack import LEASE_S, Stack
from tests.system.chaos.trouble import DECK, FREEZES, KILLS, Happened, Trouble

_FROZEN_S = (1.4 * LEASE_S, 2 * LEASE_S)
_LOST_S = (1.2 * LEASE_S, 1.6 * LEASE_S)
_AIM_FOR_S = 1.0
_UNDER_WAY_S = 0.02  # what a word that was sent already may take to arrive


class Monkey:
    """every_s: mean time between two troubles."""

    def __init__(self, stack: Stack, reclaims: Reclaims, rng: random.Random, *, every_s: float) -> None:
        self._stack = stack
        self._reclaims = reclaims
        self._rng = rng
        self._every_s = every_s
        self._deck: list[Trouble] = []
        self._thawing: set[asyncio.Task[None]] = set()
        self.happened: list[Happened] = []

    async def run(self, seconds: float) -> None:
        """Make trouble for so long, then leave everything to recover."""
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            await asyncio.sleep(self._rng.expovariate(1 / self._every_s))
            if not self._deck:
                self._deck = self._rng.sample(DECK, len(DECK))
            trouble = next((trouble for trouble in self._deck if self._victims(trouble)), None)
            if trouble is not None:
                self._deck.remove(trouble)
                await self._make(trouble, self._rng.choice(self._victims(trouble)))
        if self._thawing:
            await asyncio.wait(self._thawing)

    def _victims(self, trouble: Trouble) -> list[Process]:
        """Whoever serves, so that each trouble hits work in hand, and nobody is hit twice at once."""
        match trouble:
            case Trouble.KILL_GATEWAY:
                return _grown_up(self._stack.gateway)
            case Trouble.KILL_VALKEY | Trouble.LOSE_VALKEY:
                return _grown_up(self._stack.valkey)
            case Trouble.KILL_REAL | Trouble.FREEZE_REAL | Trouble.DRAIN_REAL:
                workers = [self._stack.real]
            case _:
                workers = self._stack.nulls
        return [process for process in workers if self._stack.is_ready(process)]

    async def _make(self, trouble: Trouble, process: Process) -> None:
        self.happened.append(Happened(time.time(), trouble, process.life))
        if trouble is Trouble.LOSE_VALKEY:
            process.kill(away_s=_LOST_S)
        elif trouble in KILLS:
            process.kill()
        elif trouble in FREEZES:
            await self._freeze(process)
            task = asyncio.create_task(self._thaw(process))
            self._thawing.add(task)
            task.add_done_callback(self._thawing.discard)
        else:
            process.drain()
        if process is self._stack.valkey:
            self._reclaims.valkey_died()
        elif trouble in (Trouble.KILL_NULL, Trouble.KILL_REAL, *FREEZES):
            await self._reclaims.watch(process.life)

    async def _thaw(self, process: Process) -> None:
        await asyncio.sleep(self._rng.uniform(*_FROZEN_S))
        process.thaw()

    async def _freeze(self, process: Process) -> None:
        """Freeze it, if it can be had, when all pictures of a job are stored and the job is not handed in: then its
        last word will come when the job is another worker's."""
        give_up_at_s = time.monotonic() + _AIM_FOR_S
        with contextlib.suppress(RedisError, OSError):
            while time.monotonic() < give_up_at_s and process.steady:
                if (job_id := await self._drawn(process.life)) is not None:
                    process.freeze()
                    await asyncio.sleep(_UNDER_WAY_S)
                    if (await job_hashes(self._stack.redis, [job_id], "state"))[0]["state"] == "in_progress":
                        return
                    process.thaw()
        process.freeze()

    async def _drawn(self, life: str) -> str | None:
        """A job of this worker whose pictures are all in the store."""
        held = await leases(self._stack.redis)
        hashes = await job_hashes(self._stack.redis, list(held), "worker", "token", "spec")
        for job_id, job in zip(held, hashes, strict=True):
            if job["worker"] == life and job["spec"] and job["token"]:
                wanted = ImageJob.model_validate_json(job["spec"]).n
                if self._stack.results(job_id, job["token"]) == wanted:
                    return job_id
        return None


def _grown_up(process: Process) -> list[Process]:
    return [process] if process.steady and process.age_s > 1 else []
