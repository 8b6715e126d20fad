"""Fidelity: every request of a churning batch against the stock pipeline. `python -m tests.benchmarks.parity`

Requests of all bundled models, with random sizes, steps, guidance, CFG, seeds and text lengths, join and leave the
batch at random steps; then each is drawn again alone by diffusers' own FluxPipeline or StableDiffusion3Pipeline.

In double precision, where the engine has no excuse, and in single: there a matrix product rounds otherwise in a batch
than alone, and a trained transformer carries such a difference further from step to step.
"""

import argparse
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from diffusers import FluxPipeline, StableDiffusion3Pipeline
from rich.console import Console
from rich.table import Table
from torch import Tensor

from app.catalog.catalog import Catalog
from tests.benchmarks.report import write_json
from tests.workers.requests import flat_cost
from workers.engine.engine import Engine
from workers.engine.pipeline import StepPipeline
from workers.engine.report import Drawn
from workers.engine.request import DenoiseRequest, ImageSpec
from workers.engine.scheduler import Scheduler
from workers.pipelines.load import find_folder, load_pipeline

MODELS = ("tiny-flux-schnell", "tiny-flux-dev", "tiny-sd3")
LIMIT = 1e-4  # of any latent, in double precision; norms of the stock transformers are in single even then
PIXEL_LIMIT = 1  # of 255, in either
_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One request drawn in the batch and alone. Differences are the largest of any element, absolute."""

    spec: ImageSpec
    largest_batch: int
    latent_difference: float
    pixel_difference: int


def random_specs(count: int, seed: int) -> list[ImageSpec]:
    pick = random.Random(seed)
    return [
        ImageSpec(
            model=MODELS[i % len(MODELS)],
            prompt=pick.choice(["a red ring", "a large green star above a small blue square", ""]) + f" {i}",
            negative_prompt=pick.choice([None, "", "blue, stripes"]),
            height=height,
            width=width,
            num_inference_steps=pick.randint(1, 28),
            guidance_scale=pick.choice([0.0, 1.0, 2.5, 3.5, 7.0]),
            true_cfg_scale=pick.choice([1.0, 1.0, 3.0]),
            max_sequence_length=pick.choice([64, 64, 64, 128]),
            seed=pick.randrange(2**32),
        )
        for i in range(count)
        for height, width in [pick.choice([(128, 128), (128, 128), (64, 96)])]
    ]


def load_bundled(dtype: torch.dtype = torch.float32, device: torch.device = _CPU) -> dict[str, StepPipeline]:
    catalog = Catalog.load()
    return {name: load_pipeline(catalog[name], None, device, dtype) for name in MODELS}


def draw_in_churn(pipelines: Mapping[str, StepPipeline], specs: Iterable[ImageSpec], seed: int) -> list[Drawn]:
    """Draw all of them, with newcomers at random step boundaries."""
    pick = random.Random(seed)
    # Rows are thought to be free, so that batches are as full as can be.
    engine = Engine(pipelines, Scheduler(flat_cost(*pipelines), max_rows=16), time.perf_counter)
    waiting = [DenoiseRequest(id=str(i), spec=spec, arrival_s=i) for i, spec in enumerate(specs)]
    drawn: list[Drawn] = []
    while waiting or len(engine):
        newcomers = [waiting.pop() for _ in range(min(len(waiting), pick.choice([0, 1, 2, 4])))]
        for report in (engine.admit(newcomers), engine.step()):
            for failed in report.failed:
                raise RuntimeError(f"request {failed.request.id} failed: {failed.reason}") from failed.cause
            drawn += report.drawn
    return drawn


def stock_latents_and_pixels(spec: ImageSpec, stock: FluxPipeline | StableDiffusion3Pipeline) -> tuple[Tensor, Tensor]:
    """Draw alone with stock diffusers, its pixels by its own image processor: (1, ...), (height, width, 3) uint8."""
    arguments = {
        "prompt": spec.prompt,
        "negative_prompt": spec.negative_prompt,
        "height": spec.height,
        "width": spec.width,
        "num_inference_steps": spec.num_inference_steps,
        "guidance_scale": spec.guidance_scale,
        "max_sequence_length": spec.max_sequence_length,
    }
    if isinstance(stock, FluxPipeline):
        arguments["true_cfg_scale"] = spec.true_cfg_scale
    results = [
        stock(**arguments, generator=torch.Generator("cpu").manual_seed(spec.seed), output_type=kind).images
        for kind in ("latent", "np")
    ]
    return results[0], (torch.from_numpy(results[1][0]) * 255).round().to(torch.uint8)


def load_stock(model: str, dtype: torch.dtype = torch.float32) -> FluxPipeline | StableDiffusion3Pipeline:
    kind = StableDiffusion3Pipeline if "sd3" in model else FluxPipeline
    stock = kind.from_pretrained(find_folder(Catalog.load()[model]), dtype=dtype)
    stock.set_progress_bar_config(disable=True)
    return stock


def compare(count: int, seed: int, dtype: torch.dtype) -> list[Comparison]:
    stocks = {model: load_stock(model, dtype) for model in MODELS}
    comparisons = []
    for drawn in draw_in_churn(load_bundled(dtype), random_specs(count, seed), seed):
        spec = drawn.request.spec
        latents, pixels = stock_latents_and_pixels(spec, stocks[spec.model])
        comparisons.append(
            Comparison(
                spec=spec,
                largest_batch=drawn.request.largest_batch,
                latent_difference=float((drawn.request.latents - latents).abs().max()),
                pixel_difference=int((drawn.pixels.int() - pixels.int()).abs().max()),
            )
        )
    return comparisons


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    console = Console(width=110)
    passed = True
    figures: dict[str, object] = {}
    for dtype in (torch.float64, torch.float32):
        comparisons = compare(options.count, options.seed, dtype)
        figures[str(dtype)] = [asdict(comparison) for comparison in comparisons]
        console.print(_table(comparisons, str(dtype).removeprefix("torch.")))
        worst = max(comparisons, key=lambda c: c.latent_difference)
        console.print(f"worst {worst.latent_difference:.1e}: {worst.spec}\n")
        passed &= max(c.pixel_difference for c in comparisons) <= PIXEL_LIMIT
        passed &= dtype is torch.float32 or worst.latent_difference <= LIMIT
    write_json("parity", figures)
    if not passed:
        console.print(f"More than {LIMIT:.0e} in double precision, or {PIXEL_LIMIT} of 255 in pixels.")
        raise SystemExit(1)


def _table(comparisons: Sequence[Comparison], dtype: str) -> Table:
    table = Table(title=f"parity: {len(comparisons)} requests in a churning batch against stock diffusers, {dtype}")
    for column in ("model", "requests", "largest batch", "max |latent difference|", "max |pixel difference| of 255"):
        table.add_column(column)
    for model in MODELS:
        own = [c for c in comparisons if c.spec.model == model]
        table.add_row(
            model,
            str(len(own)),
            str(max(c.largest_batch for c in own)),
            f"{max(c.latent_difference for c in own):.1e}",
            str(max(c.pixel_difference for c in own)),
        )
    return table


if __name__ == "__main__":
    main()
