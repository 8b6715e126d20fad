"""What the engine adds to the bare transformer forwards. `python -m tests.benchmarks.step_overhead`

The same rows, side by side in one run: engine.step() against pipeline.denoise() on a batch gathered once. Their
medians' ratio counts; the times themselves say more about the machine than about Darkroom.
"""

import argparse
import statistics
import time

import torch
from rich.console import Console
from rich.table import Table

from tests.benchmarks.parity import MODELS, load_bundled
from workers.engine.batch import gather
from workers.engine.engine import Engine
from workers.engine.pipeline import StepPipeline
from workers.engine.request import DenoiseRequest, ImageSpec
from workers.engine.scheduler import Scheduler

STEPS = 1000  # the most that a test will take; no request finishes, so that no step decodes


def requests_for(model: str, count: int) -> list[DenoiseRequest]:
    """Requests of the model's default size; guided ones for SD3, so that each is two rows."""
    return [
        DenoiseRequest(
            id=str(i),
            spec=ImageSpec(
                model=model,
                prompt="a red ring",
                negative_prompt=None,
                height=128,
                width=128,
                num_inference_steps=STEPS,
                guidance_scale=3.5,
                true_cfg_scale=1.0,
                max_sequence_length=128,
                seed=i,
            ),
            arrival=i,
        )
        for i in range(count)
    ]


def measure(pipeline: StepPipeline, model: str, count: int, repeats: int) -> tuple[int, float, float]:
    """Rows of the batch, median ms of a bare forward, and median ms that an engine step takes more than it."""
    engine = Engine({model: pipeline}, Scheduler(max_rows=64), time.perf_counter)
    requests = requests_for(model, count)
    engine.admit(requests)
    with torch.inference_mode():
        batch = gather(requests)
    bare_ms, step_ms = [], []
    for _ in range(repeats):
        started = time.perf_counter()
        with torch.inference_mode():
            pipeline.denoise(batch)
        forward_done = time.perf_counter()
        engine.step()
        bare_ms.append((forward_done - started) * 1000)
        step_ms.append((time.perf_counter() - forward_done) * 1000)
    warm = repeats // 5
    bare = statistics.median(bare_ms[warm:])
    return len(batch.latents), bare, statistics.median(step_ms[warm:]) - bare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pipelines = load_bundled()
    table = Table(title=f"engine step against bare forward, {options.threads} thread(s), medians of {options.repeats}")
    for column in ("model", "requests", "rows", "forward ms", "engine adds ms", "engine adds %"):
        table.add_column(column, justify="right")
    for model in MODELS:
        for count in (1, 4, 8, 16):
            rows, bare, added = measure(pipelines[model], model, count, min(options.repeats, STEPS - 1))
            table.add_row(model, str(count), str(rows), f"{bare:.2f}", f"{added:.2f}", f"{100 * added / bare:.1f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
