"""`python -m tests.benchmarks.gpu`: steps, stages and whole images of full-size models with random weights, on one GPU.

Without a GPU, the same with tiny models, to see that all of it works. Results are written after every cell; a rerun
goes on where the last one stopped.
"""

import argparse
import time
import traceback
from collections.abc import Iterable
from pathlib import Path

import torch
from diffusers.utils import logging as diffusers_logging
from rich.console import Console

from tests.benchmarks.gpu.architectures import published, tiny
from tests.benchmarks.gpu.cell import COMPILED, EAGER, Cell
from tests.benchmarks.gpu.flops import StepFlops, measured_peak_flops, peak_flops
from tests.benchmarks.gpu.grid import Grid
from tests.benchmarks.gpu.machine import command_line, describe_machine
from tests.benchmarks.gpu.plan import full_plan, tiny_plan
from tests.benchmarks.gpu.report import line, print_report
from tests.benchmarks.gpu.results import OUT_OF_MEMORY, SECTIONS, OtherMachineError, Results
from tests.benchmarks.gpu.shelf import Shelf
from workers.step_times.table import slug

_RESULTS = Path(__file__).parents[1] / "results"


def main() -> None:
    options = _options()
    started_s = time.perf_counter()
    # It warns of every network that is cast, though none of these has weights that must stay in float32.
    diffusers_logging.set_verbosity_error()
    console = Console(width=120, soft_wrap=True)
    device = torch.device(options.device)
    full = device.type == "cuda"
    architectures = published() if full else tiny()
    shelf = Shelf(architectures, device, torch.bfloat16 if full else torch.float32)
    machine = describe_machine(device)
    measured_peak = measured_peak_flops(device, shelf.dtype)
    peak = peak_flops(machine["device"], measured_peak)
    machine |= {"matmul_tflops": round(measured_peak / 1e12, 2), "peak_tflops": round(peak / 1e12, 2)}
    run = {"command": command_line(), "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    out = options.out or _RESULTS / f"gpu-{slug(machine['device'])}.json"
    try:
        results = Results(out, machine, run, fresh=options.fresh)
    except OtherMachineError as error:
        raise SystemExit(f"gpu: {error}") from error
    console.print(", ".join(f"{name} {value}" for name, value in machine.items()))
    plan = (full_plan if full else tiny_plan)(
        shelf, Grid(shelf, StepFlops(architectures), peak), options.models or architectures.models
    )
    plan = [cell for cell in plan if cell.section in options.only and cell.identity.get("mode", EAGER) in options.modes]
    left = measure_missing(plan, results, console, device, started_s + options.budget_s)
    print_report(results, console)
    console.print(f"{out}: {left} cells left; run again to go on" if left else f"{out}: complete")


def measure_missing(
    plan: Iterable[Cell], results: Results, console: Console, device: torch.device, until_s: float
) -> int:
    """Measure what is not there yet, and return how many cells there was no time for."""
    missing = [cell for cell in plan if cell not in results]
    for done, cell in enumerate(missing):
        if time.perf_counter() + cell.predict_s() > until_s:
            return len(missing) - done
        try:
            measured = dict(cell.measure())
        except torch.OutOfMemoryError:
            measured = {"error": OUT_OF_MEMORY}
        except Exception as error:  # the other cells are still worth measuring
            traceback.print_exc()
            measured = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        if "error" in measured:
            results.add_failure(cell, measured["error"])
            if device.type == "cuda":
                torch.cuda.empty_cache()
        else:
            results.add(cell, measured)
        console.print(line(cell, measured), highlight=False)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu", description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="JSON file. Default: tests/benchmarks/results/gpu-DEVICE.json")
    parser.add_argument("--fresh", action="store_true", help="forget what the file holds")
    parser.add_argument("--budget-s", type=float, default=float("inf"), help="stop before so many seconds have passed")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--models", nargs="+", choices=list(published().models))
    parser.add_argument("--modes", nargs="+", choices=(EAGER, COMPILED), default=(EAGER, COMPILED))
    return parser.parse_args()


if __name__ == "__main__":
    main()
