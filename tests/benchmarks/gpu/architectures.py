"""The published architectures by their numbers, and tiny ones of the same classes for a machine without a GPU.

Speed depends on shapes and dtype, not on what the weights have learnt, so random weights measure the real cost.

Sources: FLUX.1 as in black-forest-labs/flux `util.py` (depth 19 and 38, 24 heads of 128, rope axes 16, 56, 56,
autoencoder 128 x (1, 2, 4, 4) with 16 channels); SD3 and SD3.5 as in diffusers `scripts/convert_sd3_to_diffusers.py`
(heads = layers, of 64 each; grid of 192); CLIP ViT-L/14 and OpenCLIP ViT-bigG/14 text towers; T5 v1.1 XXL.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from diffusers import AutoencoderKL, FluxTransformer2DModel, SD3Transformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

CLIP_LENGTH = 77  # tokens


class Family(StrEnum):
    FLUX = "flux"
    SD3 = "sd3"


@dataclass(frozen=True, slots=True)
class Component:
    """One network: its class, and what its constructor or its `config_class` takes."""

    kind: type[Any]
    config: Mapping[str, Any]
    config_class: type[Any] | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A pipeline: components by the stock pipeline's argument names, and how the model is usually asked.

    text_length: T5 tokens. guidance_scale above 1 makes a SD3 request two rows.
    """

    name: str
    family: Family
    components: Mapping[str, str]
    noise_scheduler: Mapping[str, Any]
    text_length: int
    guidance_scale: float

    @property
    def transformer(self) -> str:
        return self.components["transformer"]

    @property
    def joint_length(self) -> int:
        """Text tokens that the transformer sees: SD3 puts CLIP's before T5's."""
        return self.text_length + (CLIP_LENGTH if self.family is Family.SD3 else 0)


@dataclass(frozen=True, slots=True)
class Architectures:
    components: Mapping[str, Component]
    models: Mapping[str, Model]


def published() -> Architectures:
    clip_l = _clip(width=768, layers=12, heads=12, act="quick_gelu")
    components = {
        "flux-dev": _flux(guidance=True, layers=19, single_layers=38, heads=24, head_width=128, t5=4096, pooled=768),
        "flux-schnell": _flux(
            guidance=False, layers=19, single_layers=38, heads=24, head_width=128, t5=4096, pooled=768
        ),
        "sd3-medium": _sd3(layers=24, head_width=64, t5=4096, pooled=2048, qk_norm=None),
        "sd3.5-large": _sd3(layers=38, head_width=64, t5=4096, pooled=2048, qk_norm="rms_norm"),
        "t5-xxl": _t5(width=4096, ff=10240, layers=24, heads=64),
        "clip-l": Component(CLIPTextModel, clip_l, CLIPTextConfig),
        "clip-l-projected": Component(CLIPTextModelWithProjection, clip_l, CLIPTextConfig),
        "clip-g": Component(
            CLIPTextModelWithProjection, _clip(width=1280, layers=32, heads=20, act="gelu"), CLIPTextConfig
        ),
        "flux-vae": _vae((128, 256, 512, 512), groups=32, scale=0.3611, shift=0.1159),
        "sd3-vae": _vae((128, 256, 512, 512), groups=32, scale=1.5305, shift=0.0609),
    }
    return Architectures(components, _models())


def tiny() -> Architectures:
    clip_l = _clip(width=32, layers=2, heads=2, act="quick_gelu")
    components = {
        "flux-dev": _flux(guidance=True, layers=1, single_layers=2, heads=2, head_width=32, t5=64, pooled=32),
        "flux-schnell": _flux(guidance=False, layers=1, single_layers=2, heads=2, head_width=32, t5=64, pooled=32),
        "sd3-medium": _sd3(layers=2, head_width=16, t5=64, pooled=64, qk_norm=None),
        "sd3.5-large": _sd3(layers=3, head_width=16, t5=64, pooled=64, qk_norm="rms_norm"),
        "t5-xxl": _t5(width=64, ff=128, layers=2, heads=1),
        "clip-l": Component(CLIPTextModel, clip_l, CLIPTextConfig),
        "clip-l-projected": Component(CLIPTextModelWithProjection, clip_l, CLIPTextConfig),
        "clip-g": Component(
            CLIPTextModelWithProjection, _clip(width=32, layers=2, heads=2, act="gelu"), CLIPTextConfig
        ),
        "flux-vae": _vae((8, 8, 8, 8), groups=4, scale=0.3611, shift=0.1159),
        "sd3-vae": _vae((8, 8, 8, 8), groups=4, scale=1.5305, shift=0.0609),
    }
    models = {name: replace(model, text_length=32) for name, model in _models().items()}
    return Architectures(components, models)


def _models() -> dict[str, Model]:
    flux = {"text_encoder": "clip-l", "text_encoder_2": "t5-xxl", "vae": "flux-vae"}
    sd3 = {
        "text_encoder": "clip-l-projected",
        "text_encoder_2": "clip-g",
        "text_encoder_3": "t5-xxl",
        "vae": "sd3-vae",
    }
    by_size = {
        "shift": 3.0,
        "use_dynamic_shifting": True,
        "base_shift": 0.5,
        "max_shift": 1.15,
        "base_image_seq_len": 256,
        "max_image_seq_len": 4096,
    }
    models = [
        Model("flux-dev", Family.FLUX, {"transformer": "flux-dev", **flux}, by_size, 512, 3.5),
        Model("flux-schnell", Family.FLUX, {"transformer": "flux-schnell", **flux}, {"shift": 1.0}, 256, 0.0),
        Model("sd3-medium", Family.SD3, {"transformer": "sd3-medium", **sd3}, {"shift": 3.0}, 256, 7.0),
        Model("sd3.5-large", Family.SD3, {"transformer": "sd3.5-large", **sd3}, {"shift": 3.0}, 256, 3.5),
    ]
    return {model.name: model for model in models}


def _flux(
    *, guidance: bool, layers: int, single_layers: int, heads: int, head_width: int, t5: int, pooled: int
) -> Component:
    first = head_width // 8  # the rotary axes share a head as 16, 56, 56 share 128
    return Component(
        FluxTransformer2DModel,
        {
            "patch_size": 1,
            "in_channels": 64,
            "num_layers": layers,
            "num_single_layers": single_layers,
            "attention_head_dim": head_width,
            "num_attention_heads": heads,
            "joint_attention_dim": t5,
            "pooled_projection_dim": pooled,
            "guidance_embeds": guidance,
            "axes_dims_rope": (first, (head_width - first) // 2, (head_width - first) // 2),
        },
    )


def _sd3(*, layers: int, head_width: int, t5: int, pooled: int, qk_norm: str | None) -> Component:
    return Component(
        SD3Transformer2DModel,
        {
            "sample_size": 128,
            "patch_size": 2,
            "in_channels": 16,
            "out_channels": 16,
            "num_layers": layers,
            "attention_head_dim": head_width,
            "num_attention_heads": layers,
            "joint_attention_dim": t5,
            "caption_projection_dim": layers * head_width,
            "pooled_projection_dim": pooled,
            "pos_embed_max_size": 192,
            "qk_norm": qk_norm,
        },
    )


def _t5(*, width: int, ff: int, layers: int, heads: int) -> Component:
    return Component(
        T5EncoderModel,
        {
            "vocab_size": 32128,
            "d_model": width,
            "d_kv": 64,
            "d_ff": ff,
            "num_layers": layers,
            "num_heads": heads,
            "feed_forward_proj": "gated-gelu",
            "is_encoder_decoder": False,
            "use_cache": False,
        },
        T5Config,
    )


def _clip(*, width: int, layers: int, heads: int, act: str) -> dict[str, Any]:
    return {
        "vocab_size": 49408,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "projection_dim": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": CLIP_LENGTH,
        "hidden_act": act,
    }


def _vae(channels: tuple[int, ...], *, groups: int, scale: float, shift: float) -> Component:
    return Component(
        AutoencoderKL,
        {
            "in_channels": 3,
            "out_channels": 3,
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "block_out_channels": channels,
            "layers_per_block": 2,
            "latent_channels": 16,
            "norm_num_groups": groups,
            "sample_size": 1024,
            "scaling_factor": scale,
            "shift_factor": shift,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
        },
    )
