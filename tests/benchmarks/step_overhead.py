"""What the engine adds to the bare transformer forwards. `python -m tests.benchmarks.step_overhead`

Once with a model that costs nothing, where a step is all overhead, in turns with a plain loop about as long, whose own
p99 is the machine's doing. And once with the bundled models, beside pipeline.denoise() on a batch gathered once: there
the ratio counts.
"""

import argparse
import statistics
import time
from dataclasses import replace

import torch
from rich.console import Console
from rich.table import Table

from app.catalog.catalog import Catalog
from tests.benchmarks.null_model import NullPipeline
from tests.benchmarks.parity import MODELS, load_bundled
from tests.benchmarks.report import write_json
from workers.engine.batch import form, gather
from workers.engine.cost import CostModel
from workers.engine.engine import Engine
from workers.engine.pipeline import StepPipeline
from workers.engine.request import DenoiseRequest
from workers.engine.scheduler import Scheduler
from workers.running_job import default_spec

STEPS = 10_000  # no request finishes, so that no step decodes
TARGET_US = 130
WARM_UP = 200


def requests_for(model: str, count: int) -> list[DenoiseRequest]:
    """Requests of the model's defaults; guided ones for SD3, so that each is two rows."""
    spec = replace(default_spec(Catalog.load()[model]), prompt="a red ring", num_inference_steps=STEPS)
    return [DenoiseRequest(str(i), replace(spec, seed=i), arrival_s=0.0) for i in range(count)]


def make_engine(model: str, pipeline: StepPipeline) -> Engine:
    return Engine({model: pipeline}, Scheduler(CostModel(), max_rows=64), time.perf_counter)


def step_us(rows: int, repeats: int) -> tuple[list[float], list[float]]:
    """Times of single steps of a null model's batch, and of a plain loop between them, in microseconds, sorted."""
    engine = make_engine("tiny-flux-dev", NullPipeline())
    engine.admit(requests_for("tiny-flux-dev", rows))
    steps: list[float] = []
    loops: list[float] = []
    turns = 100
    while len(steps) < WARM_UP + repeats:
        started = time.perf_counter()
        report = engine.step()
        stepped = time.perf_counter()
        for _ in range(turns):
            pass
        looped = time.perf_counter()
        if report.worked[0].rows == rows:
            steps.append((stepped - started) * 1e6)
            loops.append((looped - stepped) * 1e6)
        if len(steps) == WARM_UP // 2:
            turns = round(turns * statistics.median(steps) / statistics.median(loops))
    return sorted(steps[WARM_UP:]), sorted(loops[WARM_UP:])


def _percentile(times: list[float], percent: int) -> float:
    return times[len(times) * percent // 100]


def beside_forward(pipeline: StepPipeline, model: str, count: int, repeats: int) -> tuple[int, float, float]:
    """Rows of the batch, median ms of a bare forward, and median ms that an engine step of it takes more."""
    engine = make_engine(model, pipeline)
    requests = requests_for(model, count)
    engine.admit(requests)
    with torch.inference_mode():
        batch = gather(form(requests))
    bare_ms, step_ms = [], []
    for _ in range(repeats):
        started = time.perf_counter()
        with torch.inference_mode():
            pipeline.denoise(batch)
        forward_done = time.perf_counter()
        report = engine.step()
        finished = time.perf_counter()
        if report.worked[0].rows == len(batch.latents):
            bare_ms.append((forward_done - started) * 1000)
            step_ms.append((finished - forward_done) * 1000)
    warm = len(bare_ms) // 5
    bare = statistics.median(bare_ms[warm:])
    return len(batch.latents), bare, statistics.median(step_ms[warm:]) - bare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    console = Console(width=100)

    null_us = []
    table = Table(title=f"engine step of a null model, us; target: p99 at most {TARGET_US}")
    for column in ("rows", "p50", "p90", "p99", "plain loop p50", "its p99"):
        table.add_column(column, justify="right")
    for rows in (1, 8, 32):
        steps, loops = step_us(rows, repeats=10 * options.repeats)
        figures = {f"p{share}": _percentile(steps, share) for share in (50, 90, 99)}
        figures |= {f"loop_p{share}": _percentile(loops, share) for share in (50, 99)}
        null_us.append({"rows": rows, **figures})
        table.add_row(str(rows), *(f"{value:.0f}" for value in figures.values()))
    console.print(table)

    beside = []
    pipelines = load_bundled()
    table = Table(title=f"engine step beside the bare forward, {options.threads} thread(s), medians")
    for column in ("model", "requests", "rows", "forward ms", "engine adds ms", "engine adds %"):
        table.add_column(column, justify="right")
    for model in MODELS:
        for count in (1, 4, 8, 16):
            rows, bare, added = beside_forward(pipelines[model], model, count, options.repeats)
            beside.append({"model": model, "rows": rows, "forward_ms": bare, "added_ms": added})
            table.add_row(model, str(count), str(rows), f"{bare:.2f}", f"{added:.2f}", f"{100 * added / bare:.1f}")
    console.print(table)
    write_json("step-overhead", {"null_us": null_us, "beside_forward": beside})


if __name__ == "__main__":
    main()
