"""A model that costs nothing: what remains is Darkroom's own time."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from workers.engine.batch import DenoiseBatch
from workers.engine.request import Conditioning, Guidance, ImageSpec, Schedule


class NullPipeline:
    """Implements StepPipeline: its velocity is its latents. Tensors have a real model's axes, as short as can be."""

    weight_bytes = 0

    def guide(self, spec: ImageSpec) -> Guidance:
        return Guidance(spec.guidance_scale, 1.0, None)

    def encode(self, prompt: str, max_sequence_length: int) -> Conditioning:
        return Conditioning(torch.zeros(1, 8, 16), torch.zeros(1, 16))

    def init_latents(self, spec: ImageSpec) -> tuple[Tensor, Schedule]:
        steps = spec.num_inference_steps
        sigmas = tuple(1 - i / steps for i in range(steps + 1))
        latents = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(spec.seed))
        return latents, Schedule(sigmas, tuple(1000 * sigma for sigma in sigmas[:-1]))

    def denoise(self, batch: DenoiseBatch) -> Tensor:
        return batch.latents

    def decode(self, latents: Tensor, height: int, width: int) -> Tensor:
        return torch.zeros(len(latents), height, width, 3, dtype=torch.uint8)

    def preview(self, latents: Tensor, height: int, width: int) -> Tensor | None:
        return None

    @contextlib.contextmanager
    def in_float32(self) -> Iterator[None]:
        yield

    def to_device(self) -> None:
        pass

    def to_host(self) -> None:
        pass
