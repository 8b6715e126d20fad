"""Stage 4, tiny-flux-dev: guidance becomes an input, so that one forward does the work of two.

Guidance distillation as in Meng et al., "On Distillation of Guided Diffusion Models" (arXiv 2210.03142), stage one:
the student learns `uncond + w * (cond - uncond)` of the teacher for w drawn anew for every picture.
"""

import math

import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from torch import Tensor, nn

from workers.tiny.training.flow import FIGURE_WEIGHT, LATE, Batches, add_noise
from workers.tiny.training.loop import Draw, Stage
from workers.tiny.training.velocity import flux_velocity

GUIDANCE = (1.0, 16.0)  # drawn evenly on a logarithmic scale


def start_student(student: FluxTransformer2DModel, teacher: FluxTransformer2DModel) -> None:
    """Copy the teacher; the guidance embedding starts without effect."""
    embedder = {name: value for name, value in student.state_dict().items() if "guidance_embedder" in name}
    student.load_state_dict({**teacher.state_dict(), **embedder})
    nn.init.zeros_(student.time_text_embed.guidance_embedder.linear_2.weight)
    nn.init.zeros_(student.time_text_embed.guidance_embedder.linear_2.bias)


def guidance_stage(
    student: FluxTransformer2DModel, teacher: FluxTransformer2DModel, batches: Batches, steps: int
) -> Stage:
    def loss(draw: Draw) -> Tensor:
        batch = batches.draw(draw, LATE, dropped=0.0, phase=1)
        noisy, times, _ = add_noise(batch.pictures, draw)
        low, high = (math.log(value) for value in GUIDANCE)
        guidance = (low + (high - low) * torch.rand(len(noisy), generator=draw.generator)).exp().to(noisy.device)
        with torch.no_grad():
            with_prompt, without = flux_velocity(
                teacher, torch.cat([noisy, noisy]), torch.cat([times, times]), batch.condition + batch.nothing
            ).chunk(2)
        scale = guidance[:, None, None, None]
        target = without + scale * (with_prompt - without)
        error = flux_velocity(student, noisy, times, batch.condition, guidance) - target
        weight = 1 + (FIGURE_WEIGHT[1] - 1) * batch.figures
        # The targets grow with the guidance: without this, the strongest would be all that is learnt.
        return (error.square() * weight / scale).mean() / weight.mean()

    return Stage("flux-dev", student, loss, steps, matrix_rate=3e-3, hold=0.3)
