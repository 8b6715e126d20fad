"""The trained parts as stock diffusers pipelines."""

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline

from workers.tiny import components
from workers.tiny.training.text import TextEncoders, Tokenizers

NAMES = ("tiny-flux-schnell", "tiny-flux-dev", "tiny-sd3")


def flux_pipeline(
    vae: AutoencoderKL, encoders: TextEncoders, tokenizers: Tokenizers, transformer: FluxTransformer2DModel
) -> FluxPipeline:
    """FLUX.1-dev's parts where the transformer takes guidance, schnell's where it does not."""
    clip = components.flux_clip_encoder(tokenizers.clip)
    # The same CLIP-L as SD3's, but for the projection, which Flux does not use.
    clip.load_state_dict(encoders.clip.text_model.state_dict())
    return FluxPipeline(
        scheduler=components.flux_noise_scheduler(guidance=transformer.config.guidance_embeds),
        vae=vae,
        text_encoder=clip,
        tokenizer=tokenizers.clip,
        text_encoder_2=encoders.t5,
        tokenizer_2=tokenizers.t5,
        transformer=transformer,
    )


def sd3_pipeline(
    vae: AutoencoderKL, encoders: TextEncoders, tokenizers: Tokenizers, transformer: SD3Transformer2DModel
) -> StableDiffusion3Pipeline:
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=components.sd3_noise_scheduler(),
        vae=vae,
        text_encoder=encoders.clip,
        tokenizer=tokenizers.clip,
        text_encoder_2=encoders.clip_2,
        tokenizer_2=tokenizers.clip_2,
        text_encoder_3=encoders.t5,
        tokenizer_3=tokenizers.t5,
    )
