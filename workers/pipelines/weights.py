"""A model's weights, and on which side of the bus they are."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Weights:
    """The parameters and buffers of some modules, moved together between a device and host memory.

    Nobody changes weights that are served: what once came to host memory stays there as well, and leaving the device
    again costs no copy. Where the device is the CPU, nothing moves.
    """

    def __init__(self, modules: Iterable[nn.Module], device: torch.device) -> None:
        # Tied weights are one tensor under several names.
        tensors = {id(tensor): tensor for module in modules for tensor in [*module.parameters(), *module.buffers()]}
        self._tensors = list(tensors.values())
        self._device = device
        self._on_host: list[Tensor] | None = None

    @property
    def size_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self._tensors)

    def to_device(self) -> None:
        """Bring all to the device; none moves if they are there. Raises torch.OutOfMemoryError."""
        for tensor in self._tensors:
            tensor.data = tensor.data.to(self._device)

    def to_host(self) -> None:
        """Leave the device, whose memory is free for others afterwards; none moves if they have left."""
        if self._on_host is None:
            self._on_host = [tensor.data.cpu() for tensor in self._tensors]
        for tensor, data in zip(self._tensors, self._on_host, strict=True):
            tensor.data = data
        if self._device.type == "cuda":
            torch.cuda.empty_cache()  # other workers may share the card
