"""Random troubles, from a seed: what, whom and when."""

import asyncio
import random
import time

from tests.system.chaos.process import Process
from tests.system.chaos.reclaims import Held, held_by
from tests.system.chaos.stack import LEASE_S, Stack
from tests.system.chaos.trouble import DECK, FREEZES, KILLS, Happened, Trouble

_FROZEN_S = (1.4 * LEASE_S, 2 * LEASE_S)
_LOST_S = (1.2 * LEASE_S, 1.6 * LEASE_S)
_DEAF_S = (1.0, 1.5)
_FROZEN_WHEN_DEAF_S = 0.9


class Monkey:
    """every_s: mean time between two troubles. held: what was in the hands of workers that were killed or frozen."""

    def __init__(self, stack: Stack, rng: random.Random, *, every_s: float) -> None:
        self._stack = stack
        self._rng = rng
        self._every_s = every_s
        self._deck: list[Trouble] = []
        self._thawing: set[asyncio.Task[None]] = set()
        self.happened: list[Happened] = []
        self.held: list[Held] = []

    async def run(self, seconds: float) -> None:
        """Make trouble for so long, then leave everything to recover."""
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            await asyncio.sleep(self._rng.expovariate(1 / self._every_s))
            if not self._deck:
                self._deck = self._rng.sample(DECK, len(DECK))
            await self._stack.look()
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
        if trouble is Trouble.FREEZE_DEAF and not _grown_up(self._stack.valkey):
            return []
        return [process for process in workers if self._stack.is_ready(process)]

    async def _make(self, trouble: Trouble, process: Process) -> None:
        if trouble is Trouble.FREEZE_DEAF:
            # What it draws until then it cannot hand in; when it can, the job is another worker's.
            self._happens(Trouble.KILL_VALKEY, self._stack.valkey)
            self._stack.valkey.kill(away_s=_DEAF_S)
            await asyncio.sleep(_FROZEN_WHEN_DEAF_S)
        self._happens(trouble, process)
        if trouble is Trouble.LOSE_VALKEY:
            process.kill(away_s=_LOST_S)
        elif trouble in KILLS:
            process.kill()
        elif trouble in FREEZES:
            process.freeze()
            task = asyncio.create_task(self._thaw(process))
            self._thawing.add(task)
            task.add_done_callback(self._thawing.discard)
        else:
            process.drain()
        if trouble in (Trouble.KILL_NULL, Trouble.KILL_REAL, *FREEZES):
            self.held += await held_by(self._stack.redis, process.life)

    def _happens(self, trouble: Trouble, process: Process) -> None:
        self.happened.append(Happened(time.time(), trouble, process.life))

    async def _thaw(self, process: Process) -> None:
        await asyncio.sleep(self._rng.uniform(*_FROZEN_S))
        process.thaw()


def _grown_up(process: Process) -> list[Process]:
    return [process] if process.steady and process.age_s > 1 else []
