"""What the queue costs, by how much waits in it and how many share it. `python -m tests.benchmarks.queue`

A server of its own on a unix socket. The cost of a call is the processor time of the server's main thread (INFO cpu),
its reading and writing included: the server does one thing at a time, so that this bounds a whole fleet. It is the
lower quartile over batches of calls, since a busy machine makes some of them dearer. Beside it what one client waits,
which is mostly Python. A million jobs need about 2 GB.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any

from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from app.jobs.keys import PREFIX
from app.jobs.queue import Claim, JobQueue, Verdict, written
from app.jobs.schema import ImageJob, Priority
from app.jobs.scripts import connect
from tests.benchmarks.report import write_json
from tests.integration.queue_lab import LANE, PROGRESS, RESULT, numbered
from tests.integration.servers import serving

PROMPT = "a watercolour of a lighthouse on a cliff at dusk, waves breaking below, warm light in the windows, " * 2
PER_JOB = ("submit", "claim", "renew", "complete")
VERBS = (*PER_JOB, "progress", "read", "stats")
PRIORITIES = tuple(Priority)
BATCH = 20
AT_ONCE = 500
SPEC = written(numbered(0, prompt=PROMPT))
LUA = resources.files("app.jobs") / "lua"
SUBMIT = (LUA / "submit.lua").read_text().removeprefix("#!lua\n")
FILL = f"""{(LUA / "prelude.lua").read_text()}
local function submit(...)
  local ARGV = {{...}}
  {SUBMIT}
end
for number = ARGV[1] + 1, ARGV[1] + ARGV[2] do
  local id, tenant = string.format('img_%032x', number), 'tenant-' .. number % ARGV[3]
  local spec = ARGV[5]:gsub('img_%x+', id):gsub('"tenant":"[^"]*"', '"tenant":"' .. tenant .. '"')
  submit(id, tenant, ARGV[4], ARGV[6 + math.floor(number / ARGV[3]) % 3], 1000, spec, 1e9, 1e9, '', '', 0)
end
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """One verb, in microseconds a call: the server's, and what a client waits at p50 and p99."""

    server_us: float
    mean_us: float
    p50_us: float
    p99_us: float


class Bench:
    """A queue with `jobs` waiting of `tenants` in turn, one priority in three being high, normal and low each."""

    def __init__(self, client: Redis, tenants: int) -> None:
        self._client = client
        self._tenants = tenants
        self._made = 0
        self.queue = JobQueue(client, max_queued=10**9, max_open=10**9)

    def make(self) -> ImageJob:
        self._made += 1
        tenant = self._made % self._tenants
        priority = PRIORITIES[self._made // self._tenants % 3]
        return numbered(self._made, tenant=f"tenant-{tenant}", priority=priority, prompt=PROMPT)

    async def fill(self, jobs: int) -> None:
        """Submit inside the server, many at a time, by the script that submits one."""
        fill = self._client.register_script(FILL)
        for first in range(0, jobs, AT_ONCE):
            number = min(AT_ONCE, jobs - first)
            await fill(keys=[PREFIX], args=[first, number, self._tenants, LANE, SPEC, *PRIORITIES])
        self._made = jobs

    async def cost(self, calls: Sequence[Callable[[], Awaitable[Any]]]) -> Cost:
        await calls[0]()
        batches_us, times_us = [], []
        for first in range(1, len(calls), BATCH):
            before_us = await self.server_us()
            for call in calls[first : first + BATCH]:
                started_s = time.perf_counter()
                await call()
                times_us.append((time.perf_counter() - started_s) * 1e6)
            batches_us.append((await self.server_us() - before_us) / len(calls[first : first + BATCH]))
        times_us.sort()
        mean_us = sum(times_us) / len(times_us)
        p50_us, p99_us = (times_us[len(times_us) * share // 100] for share in (50, 99))
        return Cost(statistics.quantiles(batches_us)[0], mean_us, p50_us, p99_us)

    async def server_us(self) -> float:
        cpu = await self._client.info("cpu")
        return 1e6 * (float(cpu["used_cpu_user_main_thread"]) + float(cpu["used_cpu_sys_main_thread"]))

    async def costs(self, repeats: int) -> dict[str, Cost]:
        """Of every verb, with as many jobs waiting after it as before."""
        queue = self.queue
        fresh = [self.make() for _ in range(repeats)]
        claims: list[Claim] = []
        verdicts: list[Verdict] = []

        async def renew(held: Claim) -> None:
            verdicts.extend(await queue.renew([held]))

        async def claim(number: int) -> None:
            claims.extend(await self.queue.claim("worker-1", f"token-{self._made}-{number}", [LANE], 1))

        costs = {"submit": await self.cost([lambda job=job: queue.submit(job) for job in fresh])}  # type: ignore[misc]
        waiting = fresh[-1]
        costs["read"] = await self.cost([lambda: queue.read(waiting.tenant, waiting.id)] * repeats)
        costs["stats"] = await self.cost([queue.stats] * max(101, repeats // 10))
        costs["claim"] = await self.cost([lambda number=number: claim(number) for number in range(repeats)])  # type: ignore[misc]
        costs["renew"] = await self.cost([lambda held=held: renew(held) for held in claims])  # type: ignore[misc]
        reports = [[(held, PROGRESS)] for held in claims]
        costs["progress"] = await self.cost([lambda report=report: queue.progress(report) for report in reports])  # type: ignore[misc]
        costs["complete"] = await self.cost([lambda held=held: queue.complete(held, RESULT) for held in claims])  # type: ignore[misc]
        assert verdicts == [Verdict.OK] * repeats
        return {verb: costs[verb] for verb in VERBS}

    async def crowd(self, workers: int, jobs: int) -> tuple[float, float]:
        """Jobs a second and server microseconds a job of workers that claim, renew and complete until none is left."""
        done = 0

        async def work(worker: int) -> None:
            nonlocal done
            for turn in range(jobs):
                claims = await self.queue.claim(f"worker-{worker}", f"token-{worker}-{turn}", [LANE], 1)
                if not claims:
                    return
                assert await self.queue.renew(claims) == [Verdict.OK]
                assert await self.queue.complete(claims[0], RESULT) is Verdict.OK
                done += 1

        await self.fill(jobs)
        await asyncio.gather(*(self._client.ping() for _ in range(workers)))  # opens their connections
        before_us = await self.server_us()
        started_s = time.perf_counter()
        await asyncio.gather(*(work(worker) for worker in range(workers)))
        wall_s = time.perf_counter() - started_s
        return done / wall_s, (await self.server_us() - before_us) / done


def per_job_us(costs: dict[str, Cost]) -> float:
    return sum(costs[verb].server_us for verb in PER_JOB)


def show(console: Console, title: str, first: str, rows: list[dict[str, Any]]) -> None:
    table = Table(title=title)
    for column in (first, *VERBS, "a job", "ratio", "submits/s", "claim p50", "p99"):
        table.add_column(column, justify="right")
    for row in rows:
        costs = row["us"]
        table.add_row(
            f"{row[first]:,}",
            *(f"{costs[verb]['server_us']:.0f}" for verb in VERBS),
            f"{row['per_job_us']:.0f}",
            f"{row['per_job_us'] / rows[0]['per_job_us']:.2f}",
            f"{row['submits_per_s']:,.0f}",
            f"{costs['claim']['p50_us']:.0f}",
            f"{costs['claim']['p99_us']:.0f}",
        )
    console.print(table)


@asynccontextmanager
async def fresh_server(connections: int = 10) -> AsyncIterator[Redis]:
    """One for each row: to empty a server of a million jobs would be part of the next row's cost."""
    with serving() as server:
        # A thousand workers in one process wait longer for their turn than workers do.
        client = connect(f"{server.url}?max_connections={connections}&socket_timeout=60&socket_connect_timeout=60")
        yield client
        await client.aclose()


async def measure(jobs: int, tenants: int, repeats: int) -> dict[str, Any]:
    async with fresh_server() as client:
        bench = Bench(client, tenants)
        await bench.fill(jobs)
        costs = await bench.costs(repeats)
        info = await client.info()
    us = {verb: {name: getattr(cost, name) for name in Cost.__slots__} for verb, cost in costs.items()}
    figures = {"submits_per_s": 1e6 / costs["submit"].mean_us, "per_job_us": per_job_us(costs), "us": us}
    server = f"valkey {info['valkey_version']}"
    return {"server": server, "jobs": jobs, "tenants": tenants, "bytes_per_job": info["used_memory"] / jobs, **figures}


async def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    by_depth = [await measure(jobs, options.among, options.repeats) for jobs in options.jobs]
    show(console, f"server us a call, {options.among} tenants", "jobs", by_depth)
    by_tenants = [await measure(options.waiting, tenants, options.repeats) for tenants in options.tenants]
    show(console, f"server us a call, {options.waiting:,} jobs", "tenants", by_tenants)
    by_workers = []
    table = Table(title=f"workers that claim, renew and complete {options.waiting:,} jobs in one process")
    for column in ("workers", "jobs/s", "server us a job", "ratio"):
        table.add_column(column, justify="right")
    for workers in options.workers:
        async with fresh_server(workers + 10) as client:
            jobs_per_s, us = await Bench(client, options.among).crowd(workers, options.waiting)
        by_workers.append({"workers": workers, "jobs_per_s": jobs_per_s, "per_job_us": us})
        table.add_row(f"{workers:,}", f"{jobs_per_s:,.0f}", f"{us:.0f}", f"{us / by_workers[0]['per_job_us']:.2f}")
    console.print(table)
    return {"by_depth": by_depth, "by_tenants": by_tenants, "by_workers": by_workers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, nargs="*", default=[1_000, 100_000, 1_000_000], help="waiting")
    parser.add_argument("--tenants", type=int, nargs="*", default=[1, 10, 100, 1_000])
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 10, 100, 1_000])
    parser.add_argument("--among", type=int, default=10, help="tenants, while jobs or workers change")
    parser.add_argument("--waiting", type=int, default=10_000, help="jobs, while tenants or workers change")
    parser.add_argument("--repeats", type=int, default=2_000, help="calls of each verb")
    options = parser.parse_args()
    console = Console(width=130)
    write_json("queue", asyncio.run(run(options, console)), libraries=("redis",))


if __name__ == "__main__":
    main()
