"""offline: images a second, from prompts to pixels on the host, by our engine and by stock diffusers one at a time."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from tests.benchmarks.gpu.architectures import Model
from tests.benchmarks.gpu.batches import image_spec
from tests.benchmarks.gpu.cell import COMPILED, Cell
from tests.benchmarks.gpu.shelf import Shelf, wrap
from workers.engine.cost import CostModel
from workers.engine.engine import Engine
from workers.engine.pipeline import StepPipeline
from workers.engine.request import DenoiseRequest, ImageSpec
from workers.engine.scheduler import Scheduler

SECTION = "offline"
_BUILD_S = 30.0
_COMPILE_S = 60.0
_SLOWEST_IMAGE_S = 7.0

Runner = Literal["engine", "stock"]


@dataclass(frozen=True, slots=True)
class Mix:
    """images: how many the engine is given at once, in batches of up to max_rows; stock draws `stock_images`."""

    model: str
    size: int
    num_inference_steps: int
    images: int
    max_rows: int
    stock_images: int

    @property
    def name(self) -> str:
        return f"{self.model} {self.size}x{self.num_inference_steps}"


MIXES = (
    Mix("flux-dev", 1024, 28, images=4, max_rows=4, stock_images=2),
    Mix("sd3-medium", 1024, 28, images=8, max_rows=8, stock_images=4),
    Mix("flux-schnell", 1024, 4, images=8, max_rows=4, stock_images=8),
    Mix("flux-schnell", 512, 4, images=32, max_rows=8, stock_images=16),
    Mix("sd3.5-large", 1024, 28, images=4, max_rows=8, stock_images=2),
)
TINY_MIXES = tuple(
    Mix(model, 64, 2, images=2, max_rows=4, stock_images=1)
    for model in ("flux-dev", "sd3-medium", "flux-schnell", "sd3.5-large")
)


def cells(shelf: Shelf, mix: Mix, mode: str) -> list[Cell]:
    runners: tuple[Runner, ...] = ("engine", "stock")
    return [_cell(shelf, mix, runner, mode) for runner in runners]


def make_engine(model: Model, pipeline: StepPipeline, max_rows: int) -> Engine:
    return Engine({model.name: pipeline}, Scheduler(CostModel(), max_rows=max_rows), time.perf_counter)


def _cell(shelf: Shelf, mix: Mix, runner: Runner, mode: str) -> Cell:
    images, max_rows = (mix.images, mix.max_rows) if runner == "engine" else (mix.stock_images, None)

    def predict_s() -> float:
        missing = shelf.missing(set(shelf.architectures.models[mix.model].components.values()))
        seconds = (_BUILD_S if missing else 0.0) + (_COMPILE_S if mode == COMPILED else 0.0)
        share_of_slowest = mix.num_inference_steps / 28 * (mix.size / 1024) ** 2
        return seconds + 3 + images * _SLOWEST_IMAGE_S * share_of_slowest if shelf.device.type == "cuda" else 1.0

    return Cell(
        section=SECTION,
        identity={
            "mix": mix.name,
            "model": mix.model,
            "height": mix.size,
            "width": mix.size,
            "num_inference_steps": mix.num_inference_steps,
            "runner": runner,
            "images": images,
            "max_rows": max_rows,
            "mode": mode,
        },
        predict_s=predict_s,
        measure=lambda: _measure(shelf, mix, runner, mode, images),
    )


def _measure(shelf: Shelf, mix: Mix, runner: Runner, mode: str, images: int) -> dict[str, Any]:
    """Draw the images, after as many in one step each, so that compiling and warming up are not in the time."""
    model = shelf.architectures.models[mix.model]
    stock = shelf.stock(model, compiled=mode == COMPILED, whole=True)
    specs = [image_spec(model, mix.size, mix.num_inference_steps, seed) for seed in range(images)]

    def draw(specs: Sequence[ImageSpec]) -> float:
        started_s = time.perf_counter()
        if runner == "engine":
            _draw_with_engine(make_engine(model, wrap(model, stock, shelf.device), mix.max_rows), specs)
        else:
            _draw_with_stock(stock, specs)
        return time.perf_counter() - started_s

    warm_up = specs if runner == "engine" else specs[:1]
    warm_up_s = draw([replace(spec, num_inference_steps=1) for spec in warm_up])
    seconds = draw(specs)
    return {
        "images_per_s": images / seconds,
        "s_per_image": seconds / images,
        "warm_up_s": warm_up_s,
        "build_s": sum(shelf.build_s[name] for name in model.components.values()),
    }


def _draw_with_engine(engine: Engine, specs: Sequence[ImageSpec]) -> None:
    reports = [engine.admit([DenoiseRequest(id=str(i), spec=spec, arrival_s=i) for i, spec in enumerate(specs)])]
    while len(engine):
        reports.append(engine.step())
    failed = [failure for report in reports for failure in report.failed]
    if failed:
        if isinstance(failed[0].cause, torch.OutOfMemoryError):
            raise failed[0].cause
        raise RuntimeError(f"{len(failed)} of {len(specs)} requests failed: {failed[0].reason}") from failed[0].cause


def _draw_with_stock(stock: Any, specs: Sequence[ImageSpec]) -> None:
    for spec in specs:
        stock(
            prompt=spec.prompt,
            height=spec.height,
            width=spec.width,
            num_inference_steps=spec.num_inference_steps,
            guidance_scale=spec.guidance_scale,
            max_sequence_length=spec.max_sequence_length,
            generator=torch.Generator("cpu").manual_seed(spec.seed),
            output_type="np",
        )
