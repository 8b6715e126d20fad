"""The inputs of one step, in the shapes that the model's own pipeline gives them."""

from functools import partial

import torch

from tests.benchmarks.gpu.architectures import Model
from tests.benchmarks.gpu.shelf import Shelf
from workers.engine.batch import DenoiseBatch
from workers.engine.pipeline import StepPipeline
from workers.engine.request import ImageSpec


def image_spec(model: Model, size: int, num_inference_steps: int, seed: int) -> ImageSpec:
    return ImageSpec(
        model=model.name,
        prompt=f"a large green star above a small blue square {seed}",
        negative_prompt=None,
        height=size,
        width=size,
        num_inference_steps=num_inference_steps,
        guidance_scale=model.guidance_scale,
        true_cfg_scale=1.0,
        max_sequence_length=model.text_length,
        seed=seed,
    )


def step_batch(shelf: Shelf, model: Model, pipeline: StepPipeline, size: int, rows: int) -> DenoiseBatch:
    """Make the batch of a first step: noise, and noise for text features of the model's usual length."""
    latents, schedule = pipeline.init_latents(image_spec(model, size, num_inference_steps=4, seed=0))
    config = shelf.architectures.components[model.transformer].config
    noise = partial(torch.randn, device=shelf.device, dtype=shelf.dtype)
    return DenoiseBatch(
        latents=torch.cat([latents] * rows),
        timesteps=torch.full((rows,), schedule.timesteps[0], device=shelf.device),
        guidance=torch.full((rows,), model.guidance_scale, device=shelf.device),
        prompt_embeds=noise(rows, model.joint_length, config["joint_attention_dim"]),
        pooled_prompt_embeds=noise(rows, config["pooled_projection_dim"]),
        height=size,
        width=size,
    )
