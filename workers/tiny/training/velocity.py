"""The transformers as functions of latents `(B, C, H / 8, W / 8)` and times `(B,)` from 0 (picture) to 1 (noise).

Both predict the velocity `noise - picture` of the straight line between the two.
"""

import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from torch import Tensor

from workers.tiny.training.conditions import Condition

VAE_SCALE = 8


def sd3_velocity(transformer: SD3Transformer2DModel, latents: Tensor, times: Tensor, condition: Condition) -> Tensor:
    velocity: Tensor = transformer(
        hidden_states=latents,
        timestep=times * 1000,
        encoder_hidden_states=condition.context,
        pooled_projections=condition.pooled,
        return_dict=False,
    )[0]
    return velocity


def flux_velocity(
    transformer: FluxTransformer2DModel,
    latents: Tensor,
    times: Tensor,
    condition: Condition,
    guidance: Tensor | None = None,
) -> Tensor:
    """`guidance` (B,) for a transformer that was distilled with it."""
    batch, channels, height, width = latents.shape
    packed: Tensor = transformer(
        hidden_states=FluxPipeline._pack_latents(latents, batch, channels, height, width),
        timestep=times,
        guidance=guidance,
        encoder_hidden_states=condition.context,
        pooled_projections=condition.pooled,
        txt_ids=torch.zeros(condition.context.shape[1], 3, device=latents.device),
        img_ids=FluxPipeline._prepare_latent_image_ids(1, height // 2, width // 2, latents.device, latents.dtype),
        return_dict=False,
    )[0]
    velocity: Tensor = FluxPipeline._unpack_latents(packed, height * VAE_SCALE, width * VAE_SCALE, VAE_SCALE)
    return velocity
