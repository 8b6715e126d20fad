"""The arithmetic of one step. Pure functions on tensors whose first axis is the request."""

import math

import torch
from torch import Tensor


def apply_cfg(uncond: Tensor, cond: Tensor, cfg_scale: Tensor) -> Tensor:
    """Guide without a classifier: uncond + scale * (cond - uncond), a scale for each request.

    uncond, cond: (N, ...); cfg_scale: (N,) float32. Equation 6 of Ho & Salimans 2022 (arXiv 2207.12598) in the form
    that diffusers computes.
    """
    return uncond + (_over(cfg_scale, cond) * (cond - uncond).float()).to(cond.dtype)


def euler_step(latents: Tensor, noise_pred: Tensor, sigma_step: Tensor) -> Tensor:
    """Move along the predicted velocity: x + (sigma_next - sigma) * v, each request by its own step.

    latents, noise_pred: (N, ...); sigma_step: (N,) float32. Rounds where FlowMatchEulerDiscreteScheduler.step rounds,
    so that it is equal to it bit for bit: step and product in the model's dtype, the sum in float32.
    """
    move = _over(sigma_step.to(noise_pred.dtype), noise_pred) * noise_pred
    return (latents.float() + move).to(noise_pred.dtype)


def not_numbers(latents: Tensor) -> frozenset[int]:
    """Say which of the requests' latents (N, ...) hold an infinity or a NaN."""
    # One sum tells that all is well, as it nearly always is.
    if math.isfinite(latents.sum(dtype=torch.promote_types(latents.dtype, torch.float32)).item()):
        return frozenset()
    return frozenset((~torch.isfinite(latents)).flatten(1).any(1).nonzero().flatten().tolist())


def _over(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))
