"""The seam between the engine and a model family."""

from typing import Protocol

from torch import Tensor

from workers.engine.batch import DenoiseBatch
from workers.engine.request import Conditioning, Guidance, ImageSpec, Schedule


class StepPipeline(Protocol):
    """A model family, cut open between its steps. Adding a family is one file that implements this.

    Whatever a method returns is on the pipeline's device, in its dtype. Nothing here keeps state between calls.
    """

    def guide(self, spec: ImageSpec) -> Guidance:
        """Say what the request's guidance settings mean in this family."""
        ...

    def encode(self, prompt: str, max_sequence_length: int) -> Conditioning:
        """Run the text encoders. One prompt at a time: what a prompt means must not depend on its neighbours."""
        ...

    def init_latents(self, spec: ImageSpec) -> tuple[Tensor, Schedule]:
        """Draw the starting noise from the request's own seed, (1, ...), and build its noise schedule."""
        ...

    def denoise(self, batch: DenoiseBatch) -> Tensor:
        """Run the transformer once: the velocity of each row, (B, ...) like batch.latents."""
        ...

    def decode(self, latents: Tensor, height: int, width: int) -> Tensor:
        """Turn finished latents (N, ...) into pixels: (N, height, width, 3) uint8, on the CPU."""
        ...
