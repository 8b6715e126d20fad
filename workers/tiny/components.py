"""The components of the tiny models: the published configurations with small numbers.

Each comes as its class initialises it; the training recipe gives it its values.
"""

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.embeddings import get_2d_sincos_pos_embed
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

T5_WIDTH = 128
FLUX_CLIP_WIDTH = 64
# CLIP-L and CLIP-G side by side; narrower than T5, so that SD3's zero padding of the joined features is exercised.
SD3_CLIP_WIDTHS = (FLUX_CLIP_WIDTH, 48)
# Half the published number: noise of all channels has to pass through the transformers, which are narrow.
LATENT_CHANNELS = 8
WIDTH = 128  # of both transformers, in 4 heads
HEAD_WIDTH = 32
SD3_GRID = 32  # patches of 16 pixels: up to 512 x 512


def flux_transformer(guidance: bool) -> FluxTransformer2DModel:
    """Two dual-stream and four single-stream blocks; `guidance` for the distilled dev variant."""
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=4 * LATENT_CHANNELS,
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=HEAD_WIDTH,
        num_attention_heads=WIDTH // HEAD_WIDTH,
        joint_attention_dim=T5_WIDTH,
        pooled_projection_dim=FLUX_CLIP_WIDTH,
        guidance_embeds=guidance,
        axes_dims_rope=(8, 12, 12),
    )


def sd3_transformer() -> SD3Transformer2DModel:
    """Five joint blocks, the last without a context stream as in SD3; query and key norms as in SD3.5."""
    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=LATENT_CHANNELS,
        num_layers=5,
        attention_head_dim=HEAD_WIDTH,
        num_attention_heads=WIDTH // HEAD_WIDTH,
        joint_attention_dim=T5_WIDTH,
        caption_projection_dim=WIDTH,
        pooled_projection_dim=sum(SD3_CLIP_WIDTHS),
        out_channels=LATENT_CHANNELS,
        pos_embed_max_size=SD3_GRID,
        qk_norm="rms_norm",
    )
    # The positions are part of the weights. By default a patch is a quarter of a unit from the next, as far as the
    # pictures of `sample_size` lie within the grid: too close to tell apart in so few and narrow blocks.
    positions = transformer.pos_embed.pos_embed
    table = get_2d_sincos_pos_embed(WIDTH, SD3_GRID, base_size=SD3_GRID, output_type="pt")
    positions.copy_(table.reshape(positions.shape))
    return transformer


def vae() -> AutoencoderKL:
    """The published layout, 8x; latents `(B, 8, H / 8, W / 8)`, their scale and shift yet to be told."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 48, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=4,
        sample_size=128,
        scaling_factor=1.0,
        shift_factor=0.0,
        force_upcast=True,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def flux_clip_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """CLIP-L as Flux has it: only the pooled output `(B, 64)` is used."""
    return CLIPTextModel(_clip_config(tokenizer, FLUX_CLIP_WIDTH, "quick_gelu"))


def sd3_clip_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """CLIP-L as SD3 has it: features `(B, 77, 64)` of the last layer but one, pooled and projected `(B, 64)`."""
    return CLIPTextModelWithProjection(_clip_config(tokenizer, SD3_CLIP_WIDTHS[0], "quick_gelu"))


def sd3_clip_encoder_2(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """CLIP-G as SD3 has it: features `(B, 77, 48)` of the last layer but one, pooled and projected `(B, 48)`."""
    return CLIPTextModelWithProjection(_clip_config(tokenizer, SD3_CLIP_WIDTHS[1], "gelu"))


def t5_encoder(tokenizer: T5Tokenizer) -> T5EncoderModel:
    """T5 v1.1 (gated GELU), three layers; features `(B, L, 128)`."""
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=T5_WIDTH,
            d_kv=32,
            d_ff=256,
            num_layers=3,
            num_heads=4,
            relative_attention_num_buckets=32,
            relative_attention_max_distance=128,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            is_encoder_decoder=False,
            use_cache=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def flux_noise_scheduler(guidance: bool) -> FlowMatchEulerDiscreteScheduler:
    """FLUX.1-dev's, whose shift follows the number of image tokens, or schnell's, which has none."""
    return _noise_scheduler(shift=3.0 if guidance else 1.0, use_dynamic_shifting=guidance)


def sd3_noise_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """SD3: a fixed shift of 3."""
    return _noise_scheduler(shift=3.0, use_dynamic_shifting=False)


def _noise_scheduler(shift: float, use_dynamic_shifting: bool) -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000,
        shift=shift,
        use_dynamic_shifting=use_dynamic_shifting,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )


def _clip_config(tokenizer: CLIPTokenizer, width: int, hidden_act: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=3,
        num_attention_heads=width // 16,
        max_position_embeddings=tokenizer.model_max_length,
        hidden_act=hidden_act,
        # CLIP pools at the first token equal to eos_token_id. The default ids are those of the published vocabulary,
        # and 2 would select an older rule (the largest id).
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
