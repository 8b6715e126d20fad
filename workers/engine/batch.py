"""The batch of one step: gathered from the requests, thrown away after it.

Rows are laid out as one unconditional row for each of the M requests that use classifier-free guidance, then the N
requests' conditional rows, both in the order of the requests: B = M + N. Alone, that is the stock pipelines' order,
and a row's last bit can depend on its place.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
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


@dataclass(frozen=True, slots=True)
class Formation:
    """What stays the same for as long as the same requests step together: all but latents and noise levels.

    guided: (M,) the guided requests' places among the N, and cfg_scale: (M,) float32; both None without any.
    The others as in DenoiseBatch.
    """

    requests: tuple[DenoiseRequest, ...]
    rows: tuple[DenoiseRequest, ...]
    guided: Tensor | None
    cfg_scale: Tensor | None
    guidance: Tensor
    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor


class Moved(NamedTuple):
    """One step's outcome: latents (N, ...) after it, and the guided velocity (N, ...) that led there."""

    latents: Tensor
    velocity: Tensor


def form(requests: Sequence[DenoiseRequest]) -> Formation:
    """Put admitted requests of one BatchKey together."""
    guided = [i for i, request in enumerate(requests) if request.negative is not None]
    rows = [*(requests[i] for i in guided), *requests]
    conditionings = [request.negative for request in requests if request.negative is not None]
    conditionings += [request.conditioning for request in requests]
    device = requests[0].latents.device
    return Formation(
        requests=tuple(requests),
        rows=tuple(rows),
        guided=torch.tensor(guided, device=device) if guided else None,
        cfg_scale=_floats([requests[i].guidance.cfg_scale for i in guided], device) if guided else None,
        guidance=_floats([row.guidance.embedded for row in rows], device),
        prompt_embeds=torch.cat([conditioning.prompt_embeds for conditioning in conditionings]),
        pooled_prompt_embeds=torch.cat([conditioning.pooled_prompt_embeds for conditioning in conditionings]),
    )


def gather(formation: Formation) -> DenoiseBatch:
    """Build the batch of the requests' next step."""
    rows = formation.rows
    latents = _latents(formation.requests)
    if formation.guided is not None:
        latents = torch.cat([latents[formation.guided], latents])
    key = rows[0].key
    return DenoiseBatch(
        latents=latents,
        timesteps=_floats([row.schedule.timesteps[row.step_index] for row in rows], latents.device),
        guidance=formation.guidance,
        prompt_embeds=formation.prompt_embeds,
        pooled_prompt_embeds=formation.pooled_prompt_embeds,
        height=key.height,
        width=key.width,
    )


def move(formation: Formation, batch: DenoiseBatch, noise_pred: Tensor) -> Moved:
    """Guide and move each request one step along its own schedule; the requests stay as they are.

    noise_pred: (B, ...), the forward's output.
    """
    m = len(formation.rows) - len(formation.requests)
    velocity = noise_pred[m:]
    if formation.guided is not None and formation.cfg_scale is not None:
        guided = apply_cfg(noise_pred[:m], velocity[formation.guided], formation.cfg_scale)
        velocity = velocity.index_copy(0, formation.guided, guided)
    sigma_step = _floats(
        [request.schedule.sigma_steps[request.step_index] for request in formation.requests], noise_pred.device
    )
    return Moved(euler_step(batch.latents[m:], velocity, sigma_step), velocity)


def predict_x0(formation: Formation, batch: DenoiseBatch, moved: Moved, places: Sequence[int]) -> Tensor:
    """Where the velocity points to: x0 = x - sigma * v, (len(places), ...), of the requests at these places.

    After `commit`: x and v are those of the step just taken (rectified flow, arXiv 2403.03206: x = (1 - sigma) x0 +
    sigma * noise, v = noise - x0).
    """
    m = len(formation.rows) - len(formation.requests)
    requests = [formation.requests[i] for i in places]
    sigmas = [request.schedule.sigmas[request.step_index - 1] for request in requests]
    velocity = moved.velocity[list(places)]
    return euler_step(batch.latents[m:][list(places)], velocity, -_floats(sigmas, velocity.device))


def commit(request: DenoiseRequest, latents: Tensor, place: int, batch_rows: int) -> None:
    """The request has taken its step. latents: (N, ...), its own at `place`."""
    request.stack = latents
    request.place = place
    request.step_index += 1
    request.remaining_steps -= 1
    request.largest_batch = max(request.largest_batch, batch_rows)


def _latents(requests: Sequence[DenoiseRequest]) -> Tensor:
    """(N, ...): as the last step left them, if it was these requests', and else put together."""
    stack = requests[0].stack
    if len(stack) == len(requests) and all(r.stack is stack and r.place == i for i, r in enumerate(requests)):
        return stack
    return torch.cat([request.latents for request in requests])


def _floats(values: list[float], device: torch.device) -> Tensor:
    # By way of numpy it takes half of what torch.tensor takes, and it is on the way of every step.
    return torch.from_numpy(np.array(values, dtype=np.float32)).to(device)
