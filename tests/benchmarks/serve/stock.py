"""What every other server here draws with: diffusers' own pipeline, as its user would call it."""

import io
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from diffusers import FluxPipeline, StableDiffusion3Pipeline
from PIL import Image
from pydantic import BaseModel, ConfigDict

from app.catalog.catalog import Catalog, Family
from workers.pipelines.load import find_folder

_PNG_COMPRESS_LEVEL = 1  # as Darkroom's


class DrawRequest(BaseModel):
    """The part of Darkroom's request that the load asks for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    prompt: str
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    max_sequence_length: int
    seed: int

    @property
    def settings(self) -> Hashable:
        """What the requests of one pipeline call must share: all but prompt and seed."""
        return tuple(value for name, value in self if name not in ("prompt", "seed"))


class StockModels:
    """The pipelines, loaded once. One thread at a time may draw."""

    def __init__(self, names: Sequence[str]) -> None:
        torch.set_num_threads(1)
        catalog = Catalog.load()
        self._pipelines: dict[str, Any] = {}
        for name in names:
            card = catalog[name]
            kind = FluxPipeline if card.family is Family.FLUX else StableDiffusion3Pipeline
            pipeline = kind.from_pretrained(find_folder(card), local_files_only=True, use_safetensors=True)
            pipeline.set_progress_bar_config(disable=True)
            self._pipelines[name] = pipeline

    def draw(self, requests: Sequence[DrawRequest]) -> list[Image.Image]:
        """Draw requests of equal settings in one pipeline call."""
        first = requests[0]
        with torch.inference_mode():
            images: list[Image.Image] = self._pipelines[first.model](
                prompt=[request.prompt for request in requests],
                width=first.width,
                height=first.height,
                num_inference_steps=first.num_inference_steps,
                guidance_scale=first.guidance_scale,
                max_sequence_length=first.max_sequence_length,
                generator=[torch.Generator("cpu").manual_seed(request.seed) for request in requests],
            ).images
        return images

    def draw_groups(self, requests: Sequence[DrawRequest]) -> list[tuple[Image.Image, int]]:
        """Draw any requests, those of equal settings together: each one's image, and the size of its group."""
        groups: dict[Hashable, list[int]] = {}
        for i, request in enumerate(requests):
            groups.setdefault(request.settings, []).append(i)
        drawn: dict[int, tuple[Image.Image, int]] = {}
        for places in groups.values():
            images = self.draw([requests[i] for i in places])
            drawn |= {i: (image, len(places)) for i, image in zip(places, images, strict=True)}
        return [drawn[i] for i in range(len(requests))]


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=_PNG_COMPRESS_LEVEL)
    return buffer.getvalue()
