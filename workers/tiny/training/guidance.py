"""Stage 4, tiny-flux-dev: guidance becomes an input, so that one forward does the work of two.

Guidance distillation as in Meng et al., "On Distillation of Guided Diffusion Models" (arXiv 2210.03142), stage one:
the student learns `uncond + w * (cond - uncond)` of the teacher for w drawn anew for every picture.

A student of the teacher alone drew two figures worse than it. So it goes on with the data: for most of the pictures,
and little guidance, the velocity that leads to the picture itself stands for the teacher's `cond`. Its expectation is
`cond` without the teacher's errors. What was hard until then, two figures and the larger sizes, comes more often.
"""

import math
from collections.abc import Mapping

import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from torch import Tensor, nn

from workers.tiny.training.flow import FIGURE_WEIGHT, LATE, Batch, Batches, add_noise
from workers.tiny.training.loop import Draw, Stage
from workers.tiny.training.vae import Size
from workers.tiny.training.velocity import flux_velocity

GUIDANCE = (1.0, 16.0)  # drawn evenly on a logarithmic scale
DATA_GUIDANCE = (1.0, 4.0)  # the same, where the data teach: it multiplies their noise too
DATA_SHARE = 0.75  # of the pictures
TWO_FIGURES_SHARE = 0.5  # of the steps; in the others half of the pictures have two
DATA_SIZES: Mapping[Size, float] = {
    (64, 64): 1, (96, 64): 0.5, (64, 96): 0.5, (96, 96): 1, (128, 128): 5,
    (192, 128): 1, (128, 192): 1, (192, 192): 1.5, (256, 256): 2.5,
}  # fmt: skip


def start_student(student: FluxTransformer2DModel, teacher: FluxTransformer2DModel) -> None:
    """Copy the teacher; the guidance embedding starts without effect."""
    embedder = {name: value for name, value in student.state_dict().items() if "guidance_embedder" in name}
    student.load_state_dict({**teacher.state_dict(), **embedder})
    nn.init.zeros_(student.time_text_embed.guidance_embedder.linear_2.weight)
    nn.init.zeros_(student.time_text_embed.guidance_embedder.linear_2.bias)


def guidance_stage(
    student: FluxTransformer2DModel, teacher: FluxTransformer2DModel, batches: Batches, steps: int
) -> Stage:
    """The teacher alone teaches."""

    def loss(draw: Draw) -> Tensor:
        batch = batches.draw(draw, LATE, dropped=0.0, phase=1)
        return _loss(student, teacher, batch, draw, data_share=0.0)

    return Stage("flux-dev", student, loss, steps, matrix_rate=3e-3, hold=0.3)


def data_stage(student: FluxTransformer2DModel, teacher: FluxTransformer2DModel, batches: Batches, steps: int) -> Stage:
    """The data teach as well; the student has learnt from the teacher."""

    def loss(draw: Draw) -> Tensor:
        least_figures = 2 if draw.rng.random() < TWO_FIGURES_SHARE else 1
        batch = batches.draw(draw, DATA_SIZES, dropped=0.0, phase=1, least_figures=least_figures)
        return _loss(student, teacher, batch, draw, data_share=DATA_SHARE)

    return Stage("flux-dev-data", student, loss, steps, matrix_rate=6e-3, hold=0.5, rounds=3)


def _loss(
    student: FluxTransformer2DModel, teacher: FluxTransformer2DModel, batch: Batch, draw: Draw, data_share: float
) -> Tensor:
    noisy, times, noise = add_noise(batch.pictures, draw)
    from_data = torch.arange(len(noisy)) < round(data_share * len(noisy))
    guidance = torch.where(
        from_data, _draw_guidance(DATA_GUIDANCE, draw, len(noisy)), _draw_guidance(GUIDANCE, draw, len(noisy))
    ).to(noisy.device)
    with torch.no_grad():
        with_prompt, without = flux_velocity(
            teacher, torch.cat([noisy, noisy]), torch.cat([times, times]), batch.condition + batch.nothing
        ).chunk(2)
    scale = guidance[:, None, None, None]
    with_prompt = torch.where(from_data[:, None, None, None].to(noisy.device), noise - batch.pictures, with_prompt)
    target = without + scale * (with_prompt - without)
    error = flux_velocity(student, noisy, times, batch.condition, guidance) - target
    weight = 1 + (FIGURE_WEIGHT[1] - 1) * batch.figures
    # The targets grow with the guidance: without this, the strongest would be all that is learnt.
    return (error.square() * weight / scale).mean() / weight.mean()


def _draw_guidance(span: tuple[float, float], draw: Draw, count: int) -> Tensor:
    low, high = (math.log(value) for value in span)
    return (low + (high - low) * torch.rand(count, generator=draw.generator)).exp()
