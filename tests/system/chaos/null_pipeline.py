"""A model that costs a little sleep, and whose picture shows what it was drawn from."""

import hashlib
import os
import time
from pathlib import Path

import torch
from torch import Tensor

from tests.benchmarks.null_model import NullPipeline
from workers.engine.batch import DenoiseBatch
from workers.engine.request import Conditioning


class ShowingPipeline(NullPipeline):
    """Its pixels differ with the seed, the prompt and each step taken, and not with who else was in the batch."""

    def __init__(self, step_s: float, tally: Path) -> None:
        """tally: a file that tells how many steps were taken, one a row, however this process ends."""
        self._step_s = step_s
        self._steps = 0
        self._tally_fd = os.open(tally, os.O_CREAT | os.O_WRONLY)
        self._count(0)

    def encode(self, prompt: str, max_sequence_length: int) -> Conditioning:
        seed = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:7])
        pooled = torch.randn(1, 16, generator=torch.Generator().manual_seed(seed))
        return Conditioning(torch.zeros(1, 8, 16), pooled)

    def denoise(self, batch: DenoiseBatch) -> Tensor:
        time.sleep(self._step_s)
        self._count(len(batch.latents))
        return batch.latents + batch.pooled_prompt_embeds[:, :, None, None]

    def decode(self, latents: Tensor, height: int, width: int) -> Tensor:
        """latents: (N, 16, 8, 8); the first three channels are the picture's colours."""
        pixels = (torch.sigmoid(latents[:, :3]) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        return pixels.repeat_interleave(height // 8, 1).repeat_interleave(width // 8, 2)

    def _count(self, rows: int) -> None:
        self._steps += rows
        os.pwrite(self._tally_fd, f"{self._steps:20}".encode(), 0)
