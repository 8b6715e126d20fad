"""One run: start everything, load it and trouble it, let it recover, and count."""

import asyncio
import random
import re
import time
from dataclasses import dataclass
from pathlib import Path

from tests.system.chaos.api import Api
from tests.system.chaos.clients import Clients
from tests.system.chaos.job_hashes import job_hashes
from tests.system.chaos.ledger import Ledger
from tests.system.chaos.monkey import Monkey
from tests.system.chaos.reclaims import Reclaimed, reclaims
from tests.system.chaos.report import Left, Report
from tests.system.chaos.stack import Stack
from tests.system.chaos.worker_logs import WorkerLogs, read_logs

_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Options:
    """trouble_every_s: mean time between two troubles."""

    seconds: float
    seed: int
    null_workers: int = 3
    null_per_s: float = 15.0
    real_per_s: float = 0.25
    trouble_every_s: float = 1.2


async def run(options: Options, folder: Path) -> Report:
    """folder: an empty one, for logs and images. Raises TimeoutError when the stack does not start."""
    rng = random.Random(options.seed)
    ledger = Ledger()
    # A generator each: how often one is asked depends on the clock, and must not change what the others say.
    processes, troubles, orders = (random.Random(rng.random()) for _ in range(3))
    async with Stack(folder, null_workers=options.null_workers, rng=processes) as stack, Api(stack.url) as api:
        idempotent = await api.heeds_keys()
        clients = Clients(api, ledger, orders, idempotent=idempotent)
        monkey = Monkey(stack, troubles, every_s=options.trouble_every_s)
        started_s = time.monotonic()
        await asyncio.gather(
            clients.load(options.seconds, null_per_s=options.null_per_s, real_per_s=options.real_per_s),
            monkey.run(options.seconds),
        )
        seconds = time.monotonic() - started_s
        await stack.wait_until_ready()
        await clients.finish(_PATIENCE_S)
        ledger.audit([job async for job in api.jobs()])
        crashes = await _crashes(stack, ledger)
        null_steps = stack.null_steps
        left = _left(await api.metrics())
    logs = read_logs(stack.logs)
    return Report(
        seed=options.seed,
        seconds=seconds,
        idempotent=idempotent,
        ledger=ledger,
        happened=monkey.happened,
        reclaimed=_reclaimed(stack, monkey, logs),
        held=len(monkey.held),
        logs=logs,
        null_steps=null_steps,
        crashes=crashes,
        left=left,
        unexpected=[words for process in stack.processes for words in process.unexpected],
    )


def _reclaimed(stack: Stack, monkey: Monkey, logs: WorkerLogs) -> list[Reclaimed]:
    """An idle worker is one that said so in its log, while nothing had been done to it."""
    idle = {
        lane: [
            both
            for worker in workers
            for life, well in worker.well.items()
            for said in logs.idle.get(life, ())
            for span in well
            if (both := said.common(span)) is not None
        ]
        for lane, workers in stack.workers.items()
    }
    valkey_up = [span for spans in stack.valkey.well.values() for span in spans]
    return list(reclaims(monkey.held, logs.claims, idle, valkey_up))


async def _crashes(stack: Stack, ledger: Ledger) -> int:
    job_ids = [entry.job_id for entry in ledger.accepted if entry.job_id is not None]
    return sum(int(job["crashes"] or 0) for job in await job_hashes(stack.redis, job_ids, "crashes"))


def _left(metrics: str) -> Left:
    def total(name: str) -> int:
        return sum(int(float(value)) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", metrics, re.MULTILINE))

    return Left(total("darkroom_queue_depth"), total("darkroom_jobs_in_progress"), total("darkroom_dead_jobs"))
