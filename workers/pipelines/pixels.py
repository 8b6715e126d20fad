"""Latents to pixels, the same for both families: both use AutoencoderKL with a scale and a shift."""

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from workers.engine.pipeline import NotNumbersError
from workers.engine.sampling import not_numbers


def vae_decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Decode (N, C, h, w) latents to (N, H, W, 3) uint8 on the CPU. Raises NotNumbersError."""
    images: Tensor = vae.decode(latents / vae.config.scaling_factor + vae.config.shift_factor, return_dict=False)[0]
    if bad := not_numbers(images):  # as uint8 it would be a black picture, and nobody would know
        raise NotNumbersError(f"pixels of {len(bad)} of {len(images)} images")
    return to_pixels(images)


def to_pixels(images: Tensor) -> Tensor:
    """(N, 3, H, W) from -1 to 1 as (N, H, W, 3) uint8 on the CPU, rounded as diffusers' VaeImageProcessor does."""
    unit = (images * 0.5 + 0.5).clamp(0, 1)
    return (unit.permute(0, 2, 3, 1).float() * 255).round().to(torch.uint8).cpu()
