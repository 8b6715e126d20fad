"""A real pipeline in which one request's rows, or one shape of batch, make trouble on demand.

The trouble is staged, everything around it is not. The culprit is known by its prompt.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

import torch
from torch import Tensor

from workers.engine.batch import DenoiseBatch
from workers.engine.pipeline import StepPipeline
from workers.engine.request import Conditioning, Guidance, ImageSpec, Schedule

CURSED = "a cursed ring"


class Trouble(StrEnum):
    """NAN: a row is no number, also in float32. OVERFLOW: it is one in float32. ERROR: any batch with it fails."""

    NAN = "nan"
    OVERFLOW = "overflow"
    ERROR = "error"


class Troubled:
    """Implements StepPipeline. A cursed prompt's pooled embedding is remembered, so that its rows are known again.

    most_rows: larger batches run out of memory; most_pixels: so do larger images, even alone; single_decodes: so does a
    decode of more than one image.
    """

    def __init__(
        self,
        real: StepPipeline,
        trouble: Trouble | None = None,
        *,
        most_rows: int | None = None,
        most_pixels: int | None = None,
        single_decodes: bool = False,
    ) -> None:
        self._real = real
        self._trouble = trouble
        self._most_rows = most_rows
        self._most_pixels = most_pixels
        self._single_decodes = single_decodes
        self._mark: Tensor | None = None
        self._in_float32 = False
        self.forwards: list[int] = []
        self.decodes: list[int] = []

    def guide(self, spec: ImageSpec) -> Guidance:
        return self._real.guide(spec)

    def encode(self, prompt: str, max_sequence_length: int) -> Conditioning:
        conditioning = self._real.encode(prompt, max_sequence_length)
        if prompt == CURSED:
            self._mark = conditioning.pooled_prompt_embeds
        return conditioning

    def init_latents(self, spec: ImageSpec) -> tuple[Tensor, Schedule]:
        return self._real.init_latents(spec)

    def denoise(self, batch: DenoiseBatch) -> Tensor:
        rows = len(batch.latents)
        self.forwards.append(rows)
        if self._most_rows is not None and rows > self._most_rows:
            raise torch.OutOfMemoryError(f"{rows} rows")
        if self._most_pixels is not None and batch.height * batch.width > self._most_pixels:
            raise torch.OutOfMemoryError(f"{batch.height}x{batch.width}")
        cursed = self._cursed(batch)
        if self._trouble is Trouble.ERROR and cursed:
            raise RuntimeError("a cursed row")
        noise_pred = self._real.denoise(batch)
        if self._trouble is Trouble.NAN or (self._trouble is Trouble.OVERFLOW and not self._in_float32):
            for row in cursed:
                noise_pred[row] = float("nan" if self._trouble is Trouble.NAN else "inf")
        return noise_pred

    def decode(self, latents: Tensor, height: int, width: int) -> Tensor:
        self.decodes.append(len(latents))
        if self._single_decodes and len(latents) > 1:
            raise torch.OutOfMemoryError("a decode of more than one")
        return self._real.decode(latents, height, width)

    def preview(self, latents: Tensor, height: int, width: int) -> Tensor | None:
        return self._real.preview(latents, height, width)

    @contextmanager
    def in_float32(self) -> Iterator[None]:
        self._in_float32 = True
        try:
            with self._real.in_float32():
                yield
        finally:
            self._in_float32 = False

    @property
    def weight_bytes(self) -> int:
        return self._real.weight_bytes

    def to_device(self) -> None:
        self._real.to_device()

    def to_host(self) -> None:
        self._real.to_host()

    def _cursed(self, batch: DenoiseBatch) -> list[int]:
        pooled = batch.pooled_prompt_embeds
        return [] if self._mark is None else [i for i, row in enumerate(pooled) if torch.equal(row, self._mark[0])]
