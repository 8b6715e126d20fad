"""What a crowd that waits costs everybody else. `python -m tests.benchmarks.waiting`

A gateway, Valkey and a worker, each a process; the crowd is another, and this one asks as others would: a submit, a
read and a list, at a fixed rate whatever the answers take, timed from when each was due. First without the crowd, then
with it, then without: all three side by side. A poller asks for its job with `Prefer: wait=60` again and again; streams
are half `/events`, half drawings by `POST /v1/images/generations`. Their jobs wait: no worker has their model.
"""

import argparse
import asyncio
import os
import resource
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from tests.benchmarks.connection import Connection, request
from tests.benchmarks.crowd import Crowd
from tests.benchmarks.null_stack import WITHOUT_WORKER, NullStack, null_stack
from tests.benchmarks.report import write_json
from tests.system.processes import MODEL

_READY, _DONE = b"ready\n", b"done\n"
_SETTLE_S = 3.0
_FREED_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Row:
    """cpu: of a core. rss_mib, descriptors: of the gateway, at the end of it."""

    when: str
    requests: int
    p50_ms: float
    p99_ms: float
    cpu: dict[str, float]
    rss_mib: float
    descriptors: int


async def others(stack: NullStack, when: str, seconds: float, per_s: float) -> Row:
    """Ask as if there were no crowd."""
    with await Connection.open(stack.url) as connection:
        made = await connection.ask(request("POST", "/v1/images", {"prompt": "a ring", "model": MODEL}), 202)
    asked = [
        (request("POST", "/v1/images", {"prompt": "a ring", "model": MODEL, "size": "64x64"}), 202),
        (request("GET", f"/v1/images/{made['id']}"), 200),
        (request("GET", "/v1/images?limit=5"), 200),
    ]
    times_ms: list[float] = []

    async def ask(number: int, due_s: float) -> None:
        await asyncio.sleep(due_s - time.perf_counter())
        with await Connection.open(stack.url) as connection:
            await connection.ask(*asked[number % len(asked)])
        times_ms.append((time.perf_counter() - due_s) * 1000)

    before_s, started_s = stack.cpu_s(), time.perf_counter()
    await asyncio.gather(*(ask(number, started_s + number / per_s) for number in range(round(seconds * per_s))))
    wall_s, after_s = time.perf_counter() - started_s, stack.cpu_s()
    times_ms.sort()
    return Row(
        when,
        len(times_ms),
        times_ms[len(times_ms) // 2],
        times_ms[len(times_ms) * 99 // 100],
        {name: (after_s[name] - before_s[name]) / wall_s for name in after_s},
        rss_mib(stack.pids["gateway"]),
        descriptors(stack.pids["gateway"]),
    )


def rss_mib(pid: int) -> float:
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) / 1024


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@asynccontextmanager
async def crowd_process(stack: NullStack, options: argparse.Namespace) -> AsyncIterator[list[str]]:
    """A crowd in a process of its own; afterwards the list holds what it was told that it should not."""
    errors: list[str] = []
    words = [f"--{name}={getattr(options, name)}" for name in ("pollers", "streams", "jobs")]
    command = [sys.executable, "-m", "tests.benchmarks.waiting", "--crowd", stack.url, *words]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if await process.stdout.readline() != _READY:
            raise RuntimeError("the crowd did not come together")
        yield errors
        process.stdin.write(_DONE)
        errors += (await process.stdout.read()).decode().splitlines()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def be_the_crowd(url: str, options: argparse.Namespace) -> None:
    crowd = Crowd(
        url,
        model=WITHOUT_WORKER,
        jobs=options.jobs,
        pollers=options.pollers,
        streams=options.streams,
        wait_s=60,
    )
    async with crowd:
        sys.stdout.buffer.write(_READY)
        sys.stdout.buffer.flush()
        await asyncio.to_thread(sys.stdin.buffer.readline)
        for error in crowd.errors:
            print(error)
        if crowd.waiting != options.pollers + options.streams:
            print(f"only {crowd.waiting} still wait")


async def run(stack: NullStack, options: argparse.Namespace) -> tuple[list[Row], list[str], float | None]:
    """Give the rows, the crowd's errors, and how long after its end its connections were gone; None: never."""
    rows = [await others(stack, "before", options.seconds, options.per_s)]
    async with crowd_process(stack, options) as errors:
        await asyncio.sleep(_SETTLE_S)
        rows.append(await others(stack, "with the crowd", options.seconds, options.per_s))
    left_s = time.perf_counter()
    until_s = left_s + _FREED_WITHIN_S
    while descriptors(stack.pids["gateway"]) > rows[0].descriptors + 64 and time.perf_counter() < until_s:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    freed_s = time.perf_counter() - left_s
    await asyncio.sleep(_SETTLE_S)
    rows.append(await others(stack, "after", options.seconds, options.per_s))
    return rows, errors, freed_s if freed_s < _FREED_WITHIN_S else None


def show(rows: list[Row], errors: list[str], freed_s: float | None, waiters: int) -> None:
    table = Table(title="what others wait")
    for column in (
        "",
        "requests",
        "p50 ms",
        "p99 ms",
        "gateway MiB",
        "open files",
        *(f"{n} cpu" for n in rows[0].cpu),
    ):
        table.add_column(column, justify="right")
    for row in rows:
        shares = (f"{share:.2f}" for share in row.cpu.values())
        figures = (f"{row.p50_ms:.2f}", f"{row.p99_ms:.2f}", f"{row.rss_mib:.0f}", str(row.descriptors))
        table.add_row(row.when, str(row.requests), *figures, *shares)
    console = Console(width=120)
    console.print(table)
    quiet_ms = (rows[0].p99_ms + rows[2].p99_ms) / 2
    console.print(
        f"p99 with the crowd: {rows[1].p99_ms / quiet_ms:.2f} times that without;"
        f" {1024 * (rows[1].rss_mib - rows[0].rss_mib) / waiters:.1f} KiB for each who waits;"
        f" freed after {'ever' if freed_s is None else f'{freed_s:.1f} s'}; {len(errors)} errors"
    )
    for error in errors[:5]:
        console.print(error)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pollers", type=int, default=10_000)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=1_000, help="that the pollers wait for, in turns")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--per-s", type=float, default=20.0, help="requests of others")
    parser.add_argument("--crowd", help=argparse.SUPPRESS)
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if options.crowd:
        uvloop.run(be_the_crowd(options.crowd, options))
        return
    load_before = os.getloadavg()
    with null_stack() as stack:
        rows, errors, freed_s = uvloop.run(run(stack, options))
    show(rows, errors, freed_s, options.pollers + options.streams)
    figures = {"load_before": load_before, "errors": len(errors), "freed_s": freed_s, "rows": [*map(asdict, rows)]}
    write_json("waiting", figures, libraries=("fastapi", "uvicorn", "redis"))


if __name__ == "__main__":
    main()
