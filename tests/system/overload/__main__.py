"""`python -m tests.system.overload --minutes 5`: ten times the load that there is capacity for.

Exits with 1 when the workers do not stay busy, memory grows, or clients are told what does not come true.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.benchmarks.report import write_json
from tests.system.overload.run import CAPACITY, MAX_QUEUED, TIMES, Options, run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="all four phases together")
    parser.add_argument("--write", action="store_true", help="keep the figures in tests/benchmarks/results")
    given = parser.parse_args()
    console = Console(width=110)
    with tempfile.TemporaryDirectory(prefix="darkroom-overload-") as folder:
        report = asyncio.run(run(Options(seconds=60 * given.minutes / 4), Path(folder)))
    failures = report.failures()
    console.print(report.table())
    if given.write:
        setting = {"jobs a second by design": CAPACITY, "most queued": MAX_QUEUED, "times": TIMES}
        write_json("overload", {"setting": setting, **report.figures(), "failures": failures})
    for failure in failures:
        console.print(failure, style="red", markup=False)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
