"""What opening a stock pipeline between its steps is for both families."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import FluxPipeline, StableDiffusion3Pipeline
from torch import Tensor, nn

from workers.pipelines.float32 import float32_weights
from workers.pipelines.latent_rgb import LatentRGB
from workers.pipelines.pixels import vae_decode
from workers.pipelines.weights import Weights


class OpenedPipeline(ABC):
    """The half of StepPipeline that is alike: the way out of the loop, and where and how the weights are kept.

    device: where everything is computed, wherever the weights are. latent_rgb: None where the VAE has no such map.
    """

    def __init__(
        self, stock: FluxPipeline | StableDiffusion3Pipeline, device: torch.device, latent_rgb: LatentRGB | None
    ) -> None:
        self._stock = stock
        self._device = device
        self._dtype: torch.dtype = stock.transformer.dtype
        self._compute_dtype = self._dtype  # of the transformer
        self._latent_rgb = latent_rgb
        modules = [part for part in stock.components.values() if isinstance(part, nn.Module)]
        self._weights = Weights(modules, device)

    def decode(self, latents: Tensor, height: int, width: int) -> Tensor:
        return vae_decode(self._stock.vae, self._unpack(latents, height, width))

    def preview(self, latents: Tensor, height: int, width: int) -> Tensor | None:
        if self._latent_rgb is None:
            return None
        return self._latent_rgb.show(self._unpack(latents, height, width))

    @contextmanager
    def in_float32(self) -> Iterator[None]:
        if self._dtype not in (torch.float16, torch.bfloat16):
            yield
            return
        self._compute_dtype = torch.float32
        try:
            with float32_weights(self._stock.transformer):
                yield
        finally:
            self._compute_dtype = self._dtype

    @property
    def weight_bytes(self) -> int:
        return self._weights.size_bytes

    def to_device(self) -> None:
        self._weights.to_device()

    def to_host(self) -> None:
        self._weights.to_host()

    @abstractmethod
    def _unpack(self, latents: Tensor, height: int, width: int) -> Tensor:
        """Latents in the pipeline's layout as the VAE's (N, C, h, w), still scaled and shifted."""
