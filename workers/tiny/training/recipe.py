"""The whole recipe: each part is trained, or read from the run's folder, when it is first asked for."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

from workers.tiny import components
from workers.tiny.captions import write_captions
from workers.tiny.training import guidance, reflow
from workers.tiny.training.conditions import flux_condition, sd3_condition
from workers.tiny.training.flow import SCENES, Batches, Course, Encode, flow_stage
from workers.tiny.training.guidance import data_stage, guidance_stage
from workers.tiny.training.latents import Latents, encode_scenes, fingerprint
from workers.tiny.training.long_prompts import long_prompts_stage
from workers.tiny.training.loop import train
from workers.tiny.training.reflow import PAIRS, Pairs, draw_pairs, reflow_stage
from workers.tiny.training.text import Reader, TextEncoders, Tokenizers, text_stage
from workers.tiny.training.vae import Size, decoder_stage, vae_stage
from workers.tiny.training.velocity import flux_velocity, sd3_velocity

CORPUS = 6000  # captions that the tokenizers learn from
SD3_COURSE = Course(22000, rounds=2)
FLUX_COURSE = Course(22000, rounds=2)


@dataclass(frozen=True)
class Budget:
    """Steps of each stage, and how many pictures of each size the transformers learn from."""

    vae: int = 1600
    decoder: int = 2400
    text: int = 2800
    sd3: Course = SD3_COURSE
    sd3_long: int = 2000
    flux: Course = FLUX_COURSE
    flux_dev: int = 2400
    flux_dev_data: int = 4800
    flux_schnell: int = 2000
    scenes: Mapping[Size, int] = field(default_factory=lambda: SCENES)
    pairs: Mapping[Size, int] = field(default_factory=lambda: PAIRS)


class Recipe:
    """The trained parts, each made from those before it; what is finished is not trained twice.

    >>> Recipe(Path("build/tiny-models"), torch.device("cpu"), Budget()).flux_dev  # trains all that it needs
    """

    def __init__(self, folder: Path, device: torch.device, budget: Budget) -> None:
        self.folder, self.device, self.budget = folder, device, budget

    @cached_property
    def vae(self) -> AutoencoderKL:
        torch.manual_seed(0)
        vae = components.vae().to(self.device)
        train(vae_stage(vae, self.device, self.budget.vae), self.folder)
        return vae

    @cached_property
    def finished_vae(self) -> AutoencoderKL:
        """The VAE with a decoder that went on learning, and its latents' shift and scale."""
        vae = deepcopy(self.vae)
        vae.decoder.requires_grad_(True)
        train(decoder_stage(vae, self.device, self.budget.decoder), self.folder, fingerprint(self.vae))
        shift, scale = self.shift_and_scale
        vae.register_to_config(shift_factor=shift, scaling_factor=scale)
        return vae

    @cached_property
    def tokenizers(self) -> Tokenizers:
        return Tokenizers.learn(list(write_captions(seed=0, count=CORPUS)))

    @cached_property
    def encoders(self) -> TextEncoders:
        torch.manual_seed(0)
        tokenizers = self.tokenizers
        encoders = TextEncoders(
            components.sd3_clip_encoder(tokenizers.clip),
            components.sd3_clip_encoder_2(tokenizers.clip_2),
            components.t5_encoder(tokenizers.t5),
        )
        reader = Reader(encoders).to(self.device)
        train(text_stage(reader, tokenizers, self.device, self.budget.text), self.folder)
        return encoders

    @cached_property
    def raw_latents(self) -> dict[Size, Latents]:
        """As the encoder gives them."""
        return {size: encode_scenes(self.vae, size, count, self.folder) for size, count in self.budget.scenes.items()}

    @cached_property
    def shift_and_scale(self) -> tuple[float, float]:
        """The VAE's shift_factor and scaling_factor: they give its latents zero mean and unit variance."""
        values = torch.cat([data.latents.flatten() for data in self.raw_latents.values()])
        return round(values.mean().item(), 4), round(1 / values.std().item(), 4)

    @cached_property
    def latents(self) -> dict[Size, Latents]:
        """As the transformers see them."""
        shift, scale = self.shift_and_scale
        return {size: Latents(data.scenes, (data.latents - shift) * scale) for size, data in self.raw_latents.items()}

    @cached_property
    def sd3(self) -> SD3Transformer2DModel:
        base = self.sd3_base
        transformer = deepcopy(base).requires_grad_(True)
        velocity = partial(sd3_velocity, transformer)
        stage = long_prompts_stage("sd3-long", transformer, velocity, self._sd3_batches, self.budget.sd3_long)
        train(stage, self.folder, fingerprint(base))
        return transformer

    @cached_property
    def sd3_base(self) -> SD3Transformer2DModel:
        """SD3 that draws what CLIP reads."""
        batches = self._sd3_batches
        torch.manual_seed(0)
        transformer = components.sd3_transformer().to(self.device)
        middle, velocity = transformer.transformer_blocks[3], partial(sd3_velocity, transformer)
        stage = flow_stage("sd3", transformer, middle, velocity, batches, self.budget.sd3)
        train(stage, self.folder, self._origin)
        return transformer

    @cached_property
    def flux_teacher(self) -> FluxTransformer2DModel:
        """Flux with classifier-free guidance, from which the two published kinds are distilled."""
        batches = self._flux_batches  # first: what it needs to be made draws random numbers too
        torch.manual_seed(0)
        transformer = components.flux_transformer(guidance=False).to(self.device)
        middle, velocity = transformer.single_transformer_blocks[1], partial(flux_velocity, transformer)
        placed = transformer.transformer_blocks[0], middle
        stage = flow_stage("flux", transformer, middle, velocity, batches, self.budget.flux, placed)
        train(stage, self.folder, self._origin)
        return transformer

    @cached_property
    def flux_dev(self) -> FluxTransformer2DModel:
        distilled = self.flux_distilled
        student = deepcopy(distilled).requires_grad_(True)
        stage = data_stage(student, self.flux_teacher, self._flux_batches, self.budget.flux_dev_data)
        train(stage, self.folder, fingerprint(distilled))
        return student

    @cached_property
    def flux_distilled(self) -> FluxTransformer2DModel:
        """Flux that takes guidance, as far as the teacher can teach it."""
        teacher = self.flux_teacher
        torch.manual_seed(0)
        student = components.flux_transformer(guidance=True).to(self.device)
        guidance.start_student(student, teacher)
        stage = guidance_stage(student, teacher, self._flux_batches, self.budget.flux_dev)
        train(stage, self.folder, fingerprint(teacher))
        return student

    @cached_property
    def pairs(self) -> dict[Size, Pairs]:
        return {
            size: draw_pairs(self.flux_dev, self._encode_flux, size, count, self.folder)
            for size, count in self.budget.pairs.items()
        }

    @cached_property
    def flux_schnell(self) -> FluxTransformer2DModel:
        student = components.flux_transformer(guidance=False).to(self.device)
        reflow.start_student(student, self.flux_dev)
        stage = reflow_stage(student, self.pairs, self._encode_flux, self.device, self.budget.flux_schnell)
        train(stage, self.folder, fingerprint(self.flux_dev))
        return student

    @cached_property
    def _origin(self) -> str:
        """Of the transformers: they learn these latents and these encodings."""
        return fingerprint(self.vae, self.encoders)

    @cached_property
    def _sd3_batches(self) -> Batches:
        return Batches(self.latents, partial(sd3_condition, self.encoders, self.tokenizers), self.device)

    @cached_property
    def _flux_batches(self) -> Batches:
        return Batches(self.latents, self._encode_flux, self.device)

    @cached_property
    def _encode_flux(self) -> Encode:
        return partial(flux_condition, self.encoders, self.tokenizers)
