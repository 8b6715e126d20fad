"""A pipeline asked step by step, without the engine: one request, one row."""

import torch
from torch import Tensor

from workers.engine.batch import DenoiseBatch
from workers.engine.pipeline import StepPipeline
from workers.engine.request import ImageSpec
from workers.engine.sampling import euler_step


def batch_of(pipeline: StepPipeline, spec: ImageSpec, latents: Tensor, timestep: float) -> DenoiseBatch:
    """The conditional row of a request."""
    conditioning = pipeline.encode(spec.prompt, spec.max_sequence_length)
    device = latents.device
    return DenoiseBatch(
        latents=latents,
        timesteps=torch.tensor([timestep], device=device),
        guidance=torch.tensor([pipeline.guide(spec).embedded], device=device),
        prompt_embeds=conditioning.prompt_embeds,
        pooled_prompt_embeds=conditioning.pooled_prompt_embeds,
        height=spec.height,
        width=spec.width,
    )


def noise_batch(pipeline: StepPipeline, spec: ImageSpec) -> DenoiseBatch:
    """Noise at the second timestep, which unlike the first has digits that half precision cannot hold."""
    latents, schedule = pipeline.init_latents(spec)
    return batch_of(pipeline, spec, latents, schedule.timesteps[1])


@torch.inference_mode()
def draw_latents(pipeline: StepPipeline, spec: ImageSpec) -> Tensor:
    """The finished latents (1, ...), without classifier-free guidance."""
    latents, schedule = pipeline.init_latents(spec)
    for i, timestep in enumerate(schedule.timesteps):
        sigma_step = torch.tensor([schedule.sigmas[i + 1] - schedule.sigmas[i]], device=latents.device)
        latents = euler_step(latents, pipeline.denoise(batch_of(pipeline, spec, latents, timestep)), sigma_step)
    return latents
