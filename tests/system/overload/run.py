"""One run: what the workers can do, ten times as much from a crowd and from a stream, and again what they can do."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
from redis.asyncio import Redis

from app.jobs.keys import PREFIX
from app.jobs.scripts import connect
from tests.integration.servers import serving
from tests.system.overload.clients import Crowd
from tests.system.overload.memory import Memory
from tests.system.overload.report import Phase, Report
from tests.system.processes import NULL_MODEL, gateway, null_worker, steps_taken

WORKERS = 2
IMAGES = 4
STEPS = 10
STEP_MS = 100
"""Together they can draw WORKERS * IMAGES / (STEPS * STEP_MS) = 8 jobs a second, less what is lost between two jobs."""

CAPACITY = WORKERS * IMAGES / (STEPS * STEP_MS / 1000)
MAX_QUEUED = 16
TIMES = 10
_LET_IN = MAX_QUEUED + WORKERS * IMAGES


@dataclass(frozen=True, slots=True)
class Options:
    """seconds: of each of the four phases; warm_s: from its start until it is measured."""

    seconds: float
    warm_s: float = 2.0
    seed: int = 0


async def run(options: Options, folder: Path) -> Report:
    """folder: an empty one, for logs and images."""
    store_url = (folder / "images").as_uri()
    rng = random.Random(options.seed)
    with serving() as server, ExitStack() as processes:
        client = processes.enter_context(gateway(folder, server.url, store_url, DARKROOM_MAX_QUEUED=str(MAX_QUEUED)))
        for number in range(WORKERS):
            processes.enter_context(
                null_worker(
                    folder,
                    server.url,
                    store_url,
                    f"null-{number}",
                    step_ms=str(STEP_MS),
                    DARKROOM_MAX_IMAGES=str(IMAGES),
                )
            )
        limits = httpx.Limits(max_connections=100)
        async with (
            connect(server.url) as redis,
            httpx.AsyncClient(base_url=client.url, limits=limits, timeout=30, trust_env=False) as http,
        ):

            async def phase(name: str, load: Callable[[Crowd], Awaitable[None]]) -> Phase:
                await _forget_promises(redis)
                crowd = Crowd(http, STEPS, time.monotonic() + options.warm_s + options.seconds)
                memory = Memory()
                watching = asyncio.create_task(memory.watch(client.process.pid, redis))
                loading = asyncio.ensure_future(load(crowd))
                await asyncio.sleep(options.warm_s)
                before, started_s = steps_taken(folder), time.monotonic()
                await asyncio.sleep(crowd.until_s - time.monotonic())
                steps, seconds = steps_taken(folder) - before, time.monotonic() - started_s
                await _end(loading)
                await _end(watching)
                return Phase(
                    name,
                    seconds,
                    steps / STEPS,
                    crowd.accepted,
                    crowd.refused,
                    crowd.gone,
                    crowd.waits,
                    memory,
                    crowd.other_answers,
                )

            async def full(name: str) -> Phase:
                return await phase(name, lambda crowd: crowd.closed_loop(_LET_IN))

            before = await full("full, before")
            overloads = [
                await phase(f"crowd of {TIMES}x", lambda crowd: crowd.closed_loop(TIMES * _LET_IN)),
                await phase(f"stream of {TIMES}x", lambda crowd: crowd.open_loop(TIMES * CAPACITY, rng)),
            ]
            return Report((before, await full("full, after")), overloads)


async def _end(task: asyncio.Future[None]) -> None:
    """Raises what it raised. Asked again and again: a call to the queue's server can swallow a cancellation."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=1)
    if not task.cancelled():
        task.result()


async def _forget_promises(redis: Redis) -> None:
    """Those of the phase before do not come for them."""
    await redis.delete(f"{PREFIX}promised:lane:{NULL_MODEL}")
    await redis.hdel(f"{PREFIX}lane:{NULL_MODEL}", "promised_ms", "late_ms")
