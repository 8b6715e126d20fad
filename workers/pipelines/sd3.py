"""Stable Diffusion 3 and 3.5, opened between their steps, on the components of diffusers' own pipeline.

Latents travel as they are: (1, 16, H/8, W/8). What the stock pipeline does to reach its loop and to leave it is asked
of the stock pipeline; only the loop is Darkroom's.
"""

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift
from torch import Tensor

from workers.engine.batch import DenoiseBatch
from workers.engine.request import Conditioning, Guidance, ImageSpec, Schedule
from workers.pipelines.opened import OpenedPipeline


class SD3StepPipeline(OpenedPipeline):
    """Implements StepPipeline. A guidance scale above 1 is classifier-free guidance: a second row."""

    def guide(self, spec: ImageSpec) -> Guidance:
        if spec.guidance_scale > 1:
            return Guidance(0.0, spec.guidance_scale, spec.negative_prompt or "")
        return Guidance(0.0, 1.0, None)

    def encode(self, prompt: str, max_sequence_length: int) -> Conditioning:
        embeds, _, pooled, _ = self._stock.encode_prompt(
            prompt=prompt,
            prompt_2=None,
            prompt_3=None,
            device=self._device,
            do_classifier_free_guidance=False,
            max_sequence_length=max_sequence_length,
        )
        return Conditioning(embeds, pooled)

    def init_latents(self, spec: ImageSpec) -> tuple[Tensor, Schedule]:
        latents: Tensor = self._stock.prepare_latents(
            1,
            self._stock.transformer.config.in_channels,
            spec.height,
            spec.width,
            self._dtype,
            self._device,
            torch.Generator("cpu").manual_seed(spec.seed),
        )
        patch = self._stock.transformer.config.patch_size
        image_tokens = (latents.shape[2] // patch) * (latents.shape[3] // patch)
        return latents, self._schedule(spec.num_inference_steps, image_tokens)

    def denoise(self, batch: DenoiseBatch) -> Tensor:
        dtype = self._compute_dtype
        noise_pred: Tensor = self._stock.transformer(
            hidden_states=batch.latents.to(dtype),
            timestep=batch.timesteps,
            encoder_hidden_states=batch.prompt_embeds.to(dtype),
            pooled_projections=batch.pooled_prompt_embeds.to(dtype),
            return_dict=False,
        )[0]
        return noise_pred.to(batch.latents.dtype)

    def _unpack(self, latents: Tensor, height: int, width: int) -> Tensor:
        return latents

    def _schedule(self, num_inference_steps: int, image_tokens: int) -> Schedule:
        noise_scheduler: FlowMatchEulerDiscreteScheduler = self._stock.scheduler
        config = noise_scheduler.config
        # SD3 and 3.5 shift by a constant; a checkpoint that asks for a shift by size gets it, as in the stock pipeline.
        mu = None
        if config.use_dynamic_shifting:
            mu = calculate_shift(
                image_tokens, config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift
            )
        noise_scheduler.set_timesteps(num_inference_steps, mu=mu)
        return Schedule(tuple(noise_scheduler.sigmas.tolist()), tuple(noise_scheduler.timesteps.tolist()))
