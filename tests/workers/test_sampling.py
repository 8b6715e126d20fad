"""The step's arithmetic against diffusers' own, bit for bit."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from workers.engine.sampling import apply_cfg, euler_step


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(64, 64), (16, 8, 8)])
def test_euler_step_rounds_as_the_stock_scheduler_does(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Three requests at three different steps of one table, against three schedulers that each know one of them."""
    noise_scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    noise_scheduler.set_timesteps(9)
    generator = torch.Generator().manual_seed(0)
    latents, velocity = (torch.randn(3, *shape, generator=generator).to(dtype) for _ in range(2))
    steps = [0, 4, 8]
    sigmas = noise_scheduler.sigmas

    moved = euler_step(latents, velocity, torch.stack([sigmas[i + 1] - sigmas[i] for i in steps]))

    for row, step in enumerate(steps):
        noise_scheduler.set_timesteps(9)
        noise_scheduler.set_begin_index(step)
        timestep = noise_scheduler.timesteps[step]
        stock = noise_scheduler.step(velocity[row], timestep, latents[row], return_dict=False)[0]
        assert torch.equal(moved[row], stock)
        assert moved.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_apply_cfg_gives_each_request_its_own_scale(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    uncond, cond = (torch.randn(3, 16, 8, 8, generator=generator).to(dtype) for _ in range(2))
    scales = [1.5, 3.5, 7.0]

    guided = apply_cfg(uncond, cond, torch.tensor(scales))

    for row, scale in enumerate(scales):
        assert torch.equal(guided[row], uncond[row] + scale * (cond[row] - uncond[row]))
