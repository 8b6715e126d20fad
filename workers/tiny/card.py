"""The model card written beside the weights."""

CARD = """\
---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
---

# {name}

A very small model in the stock diffusers folder format, for development and tests without a GPU or a download.
Its classes, files and tensor layout are those of {original}; its weights are random, drawn from a fixed seed.
It draws textures, not pictures: another prompt, seed, guidance scale or number of steps gives another texture,
which is what a test needs and no more.

- pipeline: `{pipeline}`
- parameters: {parameters:,}, fp32
- sizes: 64 to 512 pixels in multiples of 16, best at 128; prompts of up to 256 T5 tokens
- made by `python -m workers.tiny.build`, which writes the same bytes each time
- licence: Apache-2.0; no third-party weights or data
"""

ORIGINALS = {
    "tiny-flux-schnell": "FLUX.1-schnell",
    "tiny-flux-dev": "FLUX.1-dev",
    "tiny-sd3": "Stable Diffusion 3 medium",
}


def model_card(name: str, pipeline: str, parameters: int) -> str:
    """Render the README.md of the model called `name`; `pipeline` is the class that loads it."""
    return CARD.format(name=name, original=ORIGINALS[name], pipeline=pipeline, parameters=parameters)
