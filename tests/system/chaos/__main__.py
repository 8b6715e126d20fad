"""`python -m tests.system.chaos --minutes 30`: how Darkroom bears being killed. Exits with 1 when it does not.

Logs and images are kept in a folder of their own, named at the end, when something went wrong.
"""

import argparse
import asyncio
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.benchmarks.report import write_json
from tests.system.chaos.run import Options, run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--null-workers", type=int, default=Options.null_workers)
    parser.add_argument("--per-second", type=float, default=Options.null_per_s, help="null jobs submitted")
    parser.add_argument("--trouble-every", type=float, default=Options.trouble_every_s, help="seconds, on average")
    parser.add_argument("--write", action="store_true", help="keep the figures in tests/benchmarks/results")
    given = parser.parse_args()
    console = Console(width=110)
    folder = Path(tempfile.mkdtemp(prefix="darkroom-chaos-"))
    options = Options(
        seconds=60 * given.minutes,
        seed=given.seed,
        null_workers=given.null_workers,
        null_per_s=given.per_second,
        trouble_every_s=given.trouble_every,
    )
    report = asyncio.run(run(options, folder))
    failures = report.failures()
    console.print(report.table())
    if given.write:
        write_json("chaos", {**report.figures(), "failures": failures})
    if not failures:
        shutil.rmtree(folder)
        return 0
    for failure in failures[:50]:
        console.print(failure, style="red", markup=False)
    console.print(f"{len(failures)} failures; logs are in {folder}", markup=False)
    return 1


if __name__ == "__main__":
    sys.exit(main())
