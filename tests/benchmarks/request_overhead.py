"""What a job costs beside its model: HTTP, the queue, a worker, a file. `python -m tests.benchmarks.request_overhead`

Valkey (each accepted job on disk before its 202), gateway and worker are processes of their own, and this client is
another: on two cores they all share. The model costs nothing. A job is submitted, polled until it is completed, and the
next one follows on the same connection; polls of one job are `--pause-ms` apart for each client beyond the first. The
processor time of each process is that of /proc: it hardly depends on what else a machine does, the rates do.
"""

import argparse
import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from itertools import count

import uvloop
from rich.console import Console
from rich.table import Table

from tests.benchmarks.connection import Connection, request
from tests.benchmarks.null_stack import WITHOUT_WORKER, NullStack, null_stack
from tests.benchmarks.report import write_json
from tests.system.processes import MODEL

FIELDS: dict[str, object] = {
    "prompt": "a small red ring on the left on a blue background",
    "size": "64x64",
    "num_inference_steps": 1,
    "seed": 1,
}
Act = Callable[[Connection], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Row:
    """calls: HTTP requests for one unit of work. cpu_ms: of each process, for one."""

    what: str
    clients: int
    per_s: float
    p50_ms: float
    p99_ms: float
    calls: float
    cpu_ms: dict[str, float]


async def job(connection: Connection, pause_s: float) -> int:
    """Submit one and poll it to its end; give how many requests that took."""
    made = await connection.ask(request("POST", "/v1/images", FIELDS | {"model": MODEL}), 202)
    return 1 + await until_completed(connection, request("GET", f"/v1/images/{made['id']}"), pause_s)


async def until_completed(connection: Connection, look: bytes, pause_s: float) -> int:
    """Poll; give how often."""
    for polls in count(1):
        if (status := (await connection.ask(look, 200))["status"]) == "completed":
            return polls
        if status not in ("queued", "in_progress"):
            raise RuntimeError(f"a job is {status}")
        await asyncio.sleep(pause_s)
    raise AssertionError


async def measure(stack: NullStack, what: str, clients: int, seconds: float, act: Act) -> Row:
    """Have so many clients do this over and over."""
    connections = [await Connection.open(stack.url) for _ in range(clients)]
    times_ms: list[float] = []
    calls = 0

    async def work(connection: Connection, until_s: float) -> None:
        nonlocal calls
        while (started_s := time.perf_counter()) < until_s:
            took = await act(connection)
            calls += took
            times_ms.append((time.perf_counter() - started_s) * 1000)

    await asyncio.gather(*(work(connection, time.perf_counter() + seconds / 5) for connection in connections))
    times_ms.clear()
    calls = 0
    before_s, started_s = stack.cpu_s(), time.perf_counter()
    await asyncio.gather(*(work(connection, started_s + seconds) for connection in connections))
    wall_s, after_s = time.perf_counter() - started_s, stack.cpu_s()
    for connection in connections:
        connection.close()
    times_ms.sort()
    done = len(times_ms)
    return Row(
        what,
        clients,
        done / wall_s,
        times_ms[done // 2],
        times_ms[done * 99 // 100],
        calls / done,
        {name: 1000 * (after_s[name] - before_s[name]) / done for name in after_s},
    )


async def run(stack: NullStack, options: argparse.Namespace) -> list[Row]:
    submit = request("POST", "/v1/images", FIELDS | {"model": WITHOUT_WORKER})
    with await Connection.open(stack.url) as connection:
        made = await connection.ask(request("POST", "/v1/images", FIELDS | {"model": MODEL}), 202)
        poll = request("GET", f"/v1/images/{made['id']}")
        await until_completed(connection, poll, 0.01)

    async def submit_one(connection: Connection) -> int:
        await connection.ask(submit, 202)
        return 1

    async def poll_one(connection: Connection) -> int:
        await connection.ask(poll, 200)
        return 1

    rows = []
    for clients in options.clients:
        pause_s = options.pause_ms / 1000 * (clients - 1)

        async def whole(connection: Connection, pause_s: float = pause_s) -> int:
            return await job(connection, pause_s)

        rows.append(await measure(stack, "job", clients, options.seconds, whole))
    acts = {"submit": submit_one, "poll": poll_one}
    for what, act in acts.items():
        rows += [await measure(stack, what, clients, options.seconds, act) for clients in options.clients]
    return rows


def show(rows: list[Row]) -> None:
    table = Table(title="of a job with a model that costs nothing; ms of processor time by process")
    processes = list(rows[0].cpu_ms)
    for column in ("what", "clients", "per s", "p50 ms", "p99 ms", "requests", *processes):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row.what,
            str(row.clients),
            f"{row.per_s:,.0f}",
            f"{row.p50_ms:.2f}",
            f"{row.p99_ms:.2f}",
            f"{row.calls:.1f}",
            *(f"{row.cpu_ms[name]:.2f}" for name in processes),
        )
    Console(width=110).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 32, 128])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each row")
    parser.add_argument("--pause-ms", type=float, default=1.0)
    options = parser.parse_args()
    load_before = os.getloadavg()
    with null_stack() as stack:
        rows = uvloop.run(run(stack, options))
    show(rows)
    write_json(
        "request-overhead",
        {"load_before": load_before, "rows": [asdict(row) for row in rows]},
        libraries=("fastapi", "uvicorn", "redis", "pydantic"),
    )


if __name__ == "__main__":
    main()
