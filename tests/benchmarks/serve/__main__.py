"""Open-loop load on Darkroom and on its alternatives, side by side. `python -m tests.benchmarks.serve`

Every server draws the same requests with the same models, on one thread of torch; the other core is there for whatever
else the server does (HTTP, queue, image files) and for the client. Pictures come back over HTTP as PNG, and alone each
server must draw the very picture that the stock pipeline draws.

LitServe and Ray Serve are in the extra `peers`; one that is not installed, or does not start, is named in the result.
"""

import argparse
import asyncio
import os
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from rich.console import Console

from app.cli.errors import CommandError
from tests.benchmarks.serve import report
from tests.benchmarks.serve.contenders.contender import Contender, ContenderError
from tests.benchmarks.serve.contenders.roster import BASELINE, DARKROOM, WINDOW_S, roster
from tests.benchmarks.serve.measure import Effort, Pixels, Result, alone, examples, goodput
from tests.benchmarks.serve.workloads import GUIDANCE_SCALE, MAX_SEQUENCE_LENGTH, MIXES, MODEL, Mix

_RESULTS = Path(__file__).parents[1] / "results"
_PIXEL_LIMIT = 1  # of 255
_PACKAGES = ("torch", "diffusers", "transformers", "fastapi", "uvicorn", "litserve", "ray")


class Run:
    """Everything that is measured, written down after each contender."""

    def __init__(self, mixes: Sequence[Mix], effort: Effort, out: Path, console: Console) -> None:
        self._mixes = mixes
        self._effort = effort
        self._out = out
        self._console = console
        self._results: dict[str, dict[str, Result]] = {mix.name: {} for mix in mixes}
        self._reference_s: dict[str, dict[str, float]] = {}
        self._pixels: dict[str, dict[str, Pixels]] = {}
        self._drift: dict[str, float] = {}
        self._absent: dict[str, str] = {}

    async def measure(self, contender: Contender, url: str) -> None:
        for mix in self._mixes:
            solo_s, pixels = await alone(contender, url, mix, self._effort.repeats)
            # The first contender is the stock pipeline's server: its times and pictures are everybody's measure.
            reference_s = self._reference_s.setdefault(mix.name, solo_s)
            differences = _differences(pixels, self._pixels.setdefault(mix.name, pixels))
            self._say(f"{contender.name} {mix.name} alone: {_milliseconds(solo_s)}; pixels differ by {differences}")
            if max(differences.values()) > _PIXEL_LIMIT:
                raise ContenderError(f"{contender.name} does not draw what the stock pipeline draws: {differences}")
            result = self._results[mix.name][contender.name] = Result(solo_s)
            await goodput(contender, url, mix, result, reference_s, self._effort, self._say)
            self.write(mix)

    async def look_again(self, baseline: Contender, url: str) -> None:
        """Measure the reference once more: how much slower or faster the machine has become meanwhile."""
        for mix in self._mixes:
            seconds, _ = await alone(baseline, url, mix, self._effort.repeats)
            before = sum(self._reference_s[mix.name].values())
            self._drift[mix.name] = sum(seconds.values()) / before
            self._say(f"{baseline.name} {mix.name} alone, at the end: {self._drift[mix.name]:.2f} times its first time")
            self.write(mix)

    def absent(self, contender: Contender, error: Exception) -> None:
        self._absent[contender.name] = str(error)
        self._say(f"{contender.name} is left out: {error}")

    def write(self, mix: Mix) -> None:
        results = self._results[mix.name]
        about = {
            "command": f"python -m tests.benchmarks.serve {' '.join(sys.argv[1:])}".rstrip(),
            "mix": mix.name,
            "model": MODEL,
            "guidance_scale": GUIDANCE_SCALE,
            "max_sequence_length": MAX_SEQUENCE_LENGTH,
            "window_s": WINDOW_S,
            "requests": self._effort.requests,
            "seeds": self._effort.seeds,
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "packages": _versions(),
            "absent": self._absent,
            "reference_s": self._reference_s[mix.name],
            "reference_at_the_end": self._drift.get(mix.name),
        }
        report.write(self._out / f"serve-{mix.name}.json", about, results)
        report.plot(self._out / f"serve-{mix.name}.png", mix.name, results)

    def show(self) -> None:
        for mix, results in self._results.items():
            if results:
                self._console.print(report.table(mix, results))
                self._console.print(*report.verdicts(results), sep="\n")

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mix", action="append", choices=sorted(MIXES), help="default: mix-steps and mix-res")
    parser.add_argument("--only", action="append", metavar="NAME", help="these contenders, beside one-at-a-time")
    parser.add_argument("--caps", type=int, nargs="+", default=[4], help="most requests of a static batch")
    parser.add_argument("--requests", type=int, default=1002, help="at the goodput, over all seeds")
    parser.add_argument("--search-requests", type=int, default=200, help="at each rate on the way there")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tolerance", type=float, default=0.1)
    parser.add_argument("--rates", type=float, nargs="+", default=[], help="measure at these instead of searching")
    parser.add_argument("--out", type=Path, default=_RESULTS)
    parser.add_argument("--quick", action="store_true", help="does it run: few requests, mix-steps, not for figures")
    options = parser.parse_args()
    if options.quick:
        effort = Effort(6, 6, seeds=(0,), tolerance=1.0, repeats=1, rates=(1.0, 4.0))
        mixes = [MIXES[name] for name in options.mix or ["mix-steps"]]
    else:
        effort = Effort(
            requests=options.requests,
            search_requests=options.search_requests,
            seeds=tuple(range(options.seeds)),
            tolerance=options.tolerance,
            repeats=5,
            rates=tuple(options.rates),
        )
        mixes = [MIXES[name] for name in options.mix or ["mix-steps", "mix-res"]]
    contenders = roster(examples(mixes[0])[0].body(), options.caps)
    wanted = options.only or ([DARKROOM] if options.quick else [one.name for one in contenders])
    if unknown := set(wanted) - {one.name for one in contenders}:
        parser.error(f"no contender {', '.join(sorted(unknown))}; there are: {', '.join(c.name for c in contenders)}")
    options.out.mkdir(parents=True, exist_ok=True)
    run = Run(mixes, effort, options.out, Console(width=160))
    for contender in contenders:
        if contender.name in (BASELINE, *wanted):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    with contender.running(Path(folder)) as url:
                        asyncio.run(run.measure(contender, url))
                except (ContenderError, CommandError) as error:
                    if contender.name in (BASELINE, DARKROOM):
                        raise
                    run.absent(contender, error)
    with tempfile.TemporaryDirectory() as folder, contenders[0].running(Path(folder)) as url:
        asyncio.run(run.look_again(contenders[0], url))
    run.show()
    return 0


def _differences(pixels: Mapping[str, Pixels], reference: Mapping[str, Pixels]) -> dict[str, int]:
    """By class, the largest of any channel of any pixel."""
    return {kind: int(np.abs(image.astype(int) - reference[kind].astype(int)).max()) for kind, image in pixels.items()}


def _milliseconds(solo_s: Mapping[str, float]) -> str:
    return ", ".join(f"{kind} {1000 * seconds:.0f} ms" for kind, seconds in solo_s.items())


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


if __name__ == "__main__":
    sys.exit(main())
