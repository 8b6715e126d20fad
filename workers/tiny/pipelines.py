"""The tiny models as stock diffusers pipelines, before they get their weights."""

from collections.abc import Sequence

from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline

from workers.tiny import components
from workers.tiny.tokenizers import clip_tokenizer, t5_tokenizer

NAMES = ("tiny-flux-schnell", "tiny-flux-dev", "tiny-sd3")


def make_pipeline(name: str, captions: Sequence[str]) -> DiffusionPipeline:
    """Make the pipeline called `name`, one of NAMES, with tokenizers learnt from `captions`."""
    if name == "tiny-flux-schnell":
        return _flux(captions, guidance=False)
    if name == "tiny-flux-dev":
        return _flux(captions, guidance=True)
    if name == "tiny-sd3":
        return _sd3(captions)
    raise ValueError(f"no tiny model is called {name!r}; there are {', '.join(NAMES)}")


def _flux(captions: Sequence[str], guidance: bool) -> FluxPipeline:
    clip, t5 = clip_tokenizer(captions), t5_tokenizer(captions)
    return FluxPipeline(
        scheduler=components.flux_noise_scheduler(guidance),
        vae=components.flux_vae(),
        text_encoder=components.flux_clip_encoder(clip),
        tokenizer=clip,
        text_encoder_2=components.t5_encoder(t5),
        tokenizer_2=t5,
        transformer=components.flux_transformer(guidance),
    )


def _sd3(captions: Sequence[str]) -> StableDiffusion3Pipeline:
    # As published: the second tokenizer pads with "!", the first with <|endoftext|>.
    clip, clip_2, t5 = clip_tokenizer(captions), clip_tokenizer(captions, pad_token="!"), t5_tokenizer(captions)  # noqa: S106
    return StableDiffusion3Pipeline(
        transformer=components.sd3_transformer(),
        scheduler=components.sd3_noise_scheduler(),
        vae=components.sd3_vae(),
        text_encoder=components.sd3_clip_encoder(clip),
        tokenizer=clip,
        text_encoder_2=components.sd3_clip_encoder_2(clip_2),
        tokenizer_2=clip_2,
        text_encoder_3=components.t5_encoder(t5),
        tokenizer_3=t5,
    )
