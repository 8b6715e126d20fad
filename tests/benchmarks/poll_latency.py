"""How long an idle server takes to answer a poll. `python -m tests.benchmarks.poll_latency`

A whole stack (Valkey, gateway, worker) on this machine; one client with one open connection reads a finished job
again and again.
"""

import argparse
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from app.cli.stack import Stack, StackOptions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--polls", type=int, default=2000)
    options = parser.parse_args()
    with ExitStack() as open_things:
        folder = Path(open_things.enter_context(tempfile.TemporaryDirectory()))
        stack_options = StackOptions(data_dir=folder, models=("tiny-flux-schnell",), port=0)
        stack = open_things.enter_context(Stack(stack_options, say=print))
        client = open_things.enter_context(httpx.Client(base_url=stack.url, timeout=30))
        path = f"/v1/images/{client.post('/v1/images', json={'prompt': 'a red ring'}).json()['id']}"
        while client.get(path).json()["status"] != "completed":
            time.sleep(0.1)
        times_ms = []
        for _ in range(options.polls):
            started = time.perf_counter()
            client.get(path).raise_for_status()
            times_ms.append((time.perf_counter() - started) * 1000)
    times_ms.sort()
    table = Table(title="ms a poll")
    shares = (0.5, 0.9, 0.99)
    for share in shares:
        table.add_column(f"p{100 * share:g}", justify="right")
    table.add_row(*(f"{times_ms[int(share * len(times_ms))]:.2f}" for share in shares))
    console = Console(width=100)
    console.print(f"{options.polls} polls of a finished job on an idle server")
    console.print(table)


if __name__ == "__main__":
    main()
