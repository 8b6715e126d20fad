"""The seam between the engine and a model family."""

from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor

from workers.engine.batch import DenoiseBatch
from workers.engine.request import Conditioning, Guidance, ImageSpec, Schedule


class NotNumbersError(Exception):
    """Latents or pixels hold an infinity or a NaN."""


class StepPipeline(Protocol):
    """A model family, cut open between its steps. Adding a family is one file that implements this.

    Whatever a method returns is on the pipeline's device, in its dtype, unless it says otherwise. Nothing here keeps
    state between calls, but for where the weights are: encode, denoise and decode need them on the device.
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
        """Turn finished latents (N, ...) into (N, height, width, 3) uint8 on the CPU. Raises NotNumbersError."""
        ...

    def preview(self, latents: Tensor, height: int, width: int) -> Tensor | None:
        """Show latents (N, ...) that are near noiseless small, without the VAE, wherever the weights are.

        (N, height / 8, width / 8, 3) uint8 on the CPU; None where no map to colours is known.
        """
        ...

    def in_float32(self) -> AbstractContextManager[None]:
        """Within it `denoise` computes in float32, slowly, whatever dtype the weights are kept in.

        Its result is rounded to batch.latents' dtype, as ever. Weights in float32 or float64 stay what they are.
        """
        ...

    @property
    def weight_bytes(self) -> int:
        """Of all components: what they take on the device, and what moving them costs."""
        ...

    def to_device(self) -> None:
        """Bring all weights to the device, if they are not there. Raises torch.OutOfMemoryError."""
        ...

    def to_host(self) -> None:
        """Move all weights to host memory, if they are not there, and leave their place on the device to others."""
        ...
