"""A look at what a model costs here, before the first request: the cost model's start, and the device's warm-up."""

import dataclasses
from collections.abc import Callable

import torch

from workers.engine.batch import form, gather
from workers.engine.cost import CostModel, Stage
from workers.engine.pipeline import StepPipeline
from workers.engine.request import DenoiseRequest, ImageSpec
from workers.engine.trouble import lacks_memory


@torch.inference_mode()
def calibrate(
    pipeline: StepPipeline, spec: ImageSpec, cost: CostModel, clock: Callable[[], float], max_rows: int, budget_s: float
) -> None:
    """Time batches of 1, 2, 4 ... rows of this request, and its encode and decode, until `budget_s` is spent.

    The budget is looked at between forwards, so that one of each kind is always run. A size that memory is too small
    for ends it: larger ones are left for the engine to find out about.
    """
    give_up_at_s = clock() + budget_s
    request = DenoiseRequest("calibration", dataclasses.replace(spec, guidance_scale=1.0, true_cfg_scale=1.0), clock())
    request.guidance = pipeline.guide(request.spec)
    request.conditioning = pipeline.encode(spec.prompt, spec.max_sequence_length)
    request.stack, request.schedule = pipeline.init_latents(request.spec)

    def time_twice(stage: Stage, rows: int, work: Callable[[], object]) -> None:
        work()  # the first of its kind pays for allocations and for the choice of kernels
        if clock() < give_up_at_s:
            started_s = clock()
            work()
            cost.observe(stage, request.key, rows, clock() - started_s)

    try:
        time_twice(Stage.TEXT_ENCODE, 1, lambda: pipeline.encode(spec.prompt, spec.max_sequence_length))
        time_twice(Stage.VAE_DECODE, 1, lambda: pipeline.decode(request.latents, spec.height, spec.width))
        rows = 1
        while rows <= max_rows and clock() < give_up_at_s:
            batch = gather(form([request] * rows))
            time_twice(Stage.DENOISE, rows, lambda: pipeline.denoise(batch).sum().item())  # noqa: B023
            rows *= 2
    except RuntimeError as error:
        if not lacks_memory(error):
            raise
        if torch.accelerator.is_available():
            torch.accelerator.empty_cache()
