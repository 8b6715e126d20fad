"""Flux.1, opened between its steps, on the components of diffusers' own FluxPipeline.

Latents travel packed: (1, (H/16) * (W/16), 64), each token a 2x2 patch of 16 channels, for an 8x VAE. What the stock
pipeline does to reach its loop and to leave it is asked of the stock pipeline; only the loop is Darkroom's.
"""

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from torch import Tensor

from workers.engine.batch import DenoiseBatch
from workers.engine.request import Conditioning, Guidance, ImageSpec, Schedule
from workers.pipelines.opened import OpenedPipeline


class FluxStepPipeline(OpenedPipeline):
    """Implements StepPipeline. Guidance is an input of the transformer where it was distilled with one."""

    def guide(self, spec: ImageSpec) -> Guidance:
        # FluxPipeline guides without a classifier only when it is given a negative prompt as well.
        if spec.true_cfg_scale > 1 and spec.negative_prompt is not None:
            return Guidance(spec.guidance_scale, spec.true_cfg_scale, spec.negative_prompt)
        return Guidance(spec.guidance_scale, 1.0, None)

    def encode(self, prompt: str, max_sequence_length: int) -> Conditioning:
        embeds, pooled, _ = self._stock.encode_prompt(
            prompt=prompt, prompt_2=None, device=self._device, max_sequence_length=max_sequence_length
        )
        return Conditioning(embeds, pooled)

    def init_latents(self, spec: ImageSpec) -> tuple[Tensor, Schedule]:
        latents, _ = self._stock.prepare_latents(
            1,
            self._stock.transformer.config.in_channels // 4,
            spec.height,
            spec.width,
            self._dtype,
            self._device,
            torch.Generator("cpu").manual_seed(spec.seed),
        )
        return latents, self._schedule(spec.num_inference_steps, image_tokens=latents.shape[1])

    def denoise(self, batch: DenoiseBatch) -> Tensor:
        transformer = self._stock.transformer
        dtype = self._compute_dtype
        side = self._stock.vae_scale_factor * 2
        text_ids = torch.zeros(batch.prompt_embeds.shape[1], 3, device=self._device, dtype=dtype)
        image_ids = self._stock._prepare_latent_image_ids(
            1, batch.height // side, batch.width // side, self._device, dtype
        )
        noise_pred: Tensor = transformer(
            hidden_states=batch.latents.to(dtype),
            # Rounded to the latents' dtype before the division, as the stock loop does.
            timestep=batch.timesteps.to(dtype) / 1000,
            guidance=batch.guidance if transformer.config.guidance_embeds else None,
            pooled_projections=batch.pooled_prompt_embeds.to(dtype),
            encoder_hidden_states=batch.prompt_embeds.to(dtype),
            txt_ids=text_ids,
            img_ids=image_ids,
            return_dict=False,
        )[0]
        return noise_pred.to(batch.latents.dtype)

    def _unpack(self, latents: Tensor, height: int, width: int) -> Tensor:
        unpacked: Tensor = self._stock._unpack_latents(latents, height, width, self._stock.vae_scale_factor)
        return unpacked

    def _schedule(self, num_inference_steps: int, image_tokens: int) -> Schedule:
        noise_scheduler: FlowMatchEulerDiscreteScheduler = self._stock.scheduler
        config = noise_scheduler.config
        mu = calculate_shift(
            image_tokens, config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift
        )
        sigmas = np.linspace(1.0, 1 / num_inference_steps, num_inference_steps)
        noise_scheduler.set_timesteps(sigmas=sigmas.tolist(), mu=mu)
        return Schedule(tuple(noise_scheduler.sigmas.tolist()), tuple(noise_scheduler.timesteps.tolist()))
