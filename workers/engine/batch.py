"""The batch of one step: gathered from the requests, thrown away after it.

Rows are laid out as one unconditional row for each of the M requests that use classifier-free guidance, then the N
requests' conditional rows, both in the order of the requests: B = M + N. Alone, that is the stock pipelines' order,
and a row's last bit can depend on its place.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.engine.request import DenoiseRequest
from workers.engine.sampling import apply_cfg, euler_step


@dataclass(frozen=True, slots=True)
class DenoiseBatch:
    """One forward's inputs, on the pipeline's device.

    latents: (B, ...) in the pipeline's layout. timesteps: (B,) float32, 1000 * sigma. guidance: (B,) float32, the
    embedded guidance scale. prompt_embeds: (B, L, D). pooled_prompt_embeds: (B, P). height, width in pixels.
    """

    latents: Tensor
    timesteps: Tensor
    guidance: Tensor
    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor
    height: int
    width: int


def gather(requests: Sequence[DenoiseRequest]) -> DenoiseBatch:
    """Build the batch of the requests' next step. All share one BatchKey."""
    guided = [request for request in requests if request.negative is not None]
    rows = [*guided, *requests]
    latents = torch.cat([row.latents for row in rows])
    device = latents.device
    conditionings = [request.negative for request in guided if request.negative is not None]
    conditionings += [request.conditioning for request in requests]
    return DenoiseBatch(
        latents=latents,
        timesteps=torch.tensor([row.schedule.timesteps[row.step_index] for row in rows], device=device),
        guidance=torch.tensor([row.guidance.embedded for row in rows], device=device),
        prompt_embeds=torch.cat([conditioning.prompt_embeds for conditioning in conditionings]),
        pooled_prompt_embeds=torch.cat([conditioning.pooled_prompt_embeds for conditioning in conditionings]),
        height=requests[0].key.height,
        width=requests[0].key.width,
    )


def scatter(requests: Sequence[DenoiseRequest], batch: DenoiseBatch, noise_pred: Tensor) -> None:
    """Guide and move each request one step along its own schedule. noise_pred: (B, ...), the forward's output."""
    device = noise_pred.device
    guided = [i for i, request in enumerate(requests) if request.negative is not None]
    m = len(guided)
    velocity = noise_pred[m:]
    if guided:
        index = torch.tensor(guided, device=device)
        scale = torch.tensor([requests[i].guidance.cfg_scale for i in guided], device=device)
        velocity = velocity.index_copy(0, index, apply_cfg(noise_pred[:m], velocity[index], scale))
    sigma_step = torch.tensor(
        [
            request.schedule.sigmas[request.step_index + 1] - request.schedule.sigmas[request.step_index]
            for request in requests
        ],
        device=device,
    )
    moved = euler_step(batch.latents[m:], velocity, sigma_step)
    for i, request in enumerate(requests):
        request.latents = moved[i : i + 1]
        request.step_index += 1
        request.largest_batch = max(request.largest_batch, len(noise_pred))
