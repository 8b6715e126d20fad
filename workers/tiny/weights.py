"""Seeded random weights under which an untrained model still answers to its prompt, seed, guidance and steps."""

import math
from collections.abc import Mapping
from zlib import crc32

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5EncoderModel

# Measured, not derived: the pooled prompt is turned up until another prompt weaves another pattern, and the velocity
# down until rounding is not amplified: parity is tested at 1e-5, also at high guidance.
CLIP_GAINS = {"token_embedding": 0.5, "position_embedding": 0.25, "v_proj": 2.0, "out_proj": 2.0, "fc2": 1.5}
GAINS: Mapping[type[nn.Module], Mapping[str, float]] = {
    CLIPTextModel: CLIP_GAINS,
    CLIPTextModelWithProjection: CLIP_GAINS,
    T5EncoderModel: {"SelfAttention.q": 0.25, "SelfAttention.v": 1.5},  # T5 does not divide by sqrt(d_kv)
    FluxTransformer2DModel: {"context_embedder": 2.0, "text_embedder": 2.0, "norm_out": 2.0, "proj_out": 0.15},
    SD3Transformer2DModel: {"context_embedder": 2.0, "text_embedder": 1.5, "norm_out": 1.0, "proj_out": 0.09},
    AutoencoderKL: {"decoder.conv_out": 0.75},
}


def fill_pipeline(pipeline: DiffusionPipeline, name: str) -> None:
    """Redraw every weight of a pipeline in place.

    `name` seeds the transformer alone: models of one family share text encoders and VAE, as the published ones do.
    """
    for key, module in pipeline.components.items():
        if isinstance(module, nn.Module):
            owner = name if key == "transformer" else type(pipeline).__name__
            fill_module(module, seed=crc32(f"{owner}/{key}".encode()), gains=GAINS[type(module)])


def fill_module(module: nn.Module, seed: int, gains: Mapping[str, float]) -> None:
    """Redraw every parameter in place; a gain multiplies the matrices whose name contains its key.

    Matrices get a standard deviation of gain / sqrt(fan_in), embedding tables of gain, so that unit scale in gives
    unit scale out. Vectors are 1 (norm scales) or 0 (biases), give or take 0.05, so that none is without effect.
    Draws are uniform: torch gives the same uniform floats on every CPU, which its normal ones are not promised to be.
    """
    generator = torch.Generator().manual_seed(seed)
    tables = {id(layer.weight) for layer in module.modules() if isinstance(layer, nn.Embedding)}
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.rand(parameter.shape, generator=generator) * 2 - 1
            if parameter.ndim == 1:
                parameter.copy_((1.0 if name.endswith("weight") else 0.0) + 0.05 * noise)
                continue
            fan_in = 1 if id(parameter) in tables else math.prod(parameter.shape[1:])
            gain = math.prod(factor for key, factor in gains.items() if key in name)
            parameter.copy_(noise * (gain * math.sqrt(3 / fan_in)))
