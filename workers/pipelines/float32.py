"""Float32 arithmetic on weights that are kept in half precision."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

_HALVES = (torch.float16, torch.bfloat16)


@contextmanager
def float32_weights(module: nn.Module) -> Iterator[None]:
    """Within it, each part of `module` has its weights in float32 while it runs, whatever dtype they are kept in.

    One part at a time, so that no second copy of the whole is made. Afterwards the very tensors that were there before
    are there again. Inputs are the caller's to cast.
    """
    # diffusers' layerwise casting would do the first half, but cannot be taken off again, skips norms, and leaves a
    # part in float32 when its forward raises.
    handles = []
    try:
        for part in module.modules():
            if any(tensor.dtype in _HALVES for tensor in _own(part)):
                widened = _Widened()
                handles.append(part.register_forward_pre_hook(widened.widen))
                handles.append(part.register_forward_hook(widened.narrow, always_call=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Widened:
    """One part, between the two hooks around its forward."""

    def __init__(self) -> None:
        self._kept: list[tuple[Tensor, Tensor]] = []

    def widen(self, part: nn.Module, inputs: Any) -> None:
        self._kept = [(tensor, tensor.data) for tensor in _own(part) if tensor.dtype in _HALVES]
        for tensor, data in self._kept:
            tensor.data = data.float()

    def narrow(self, part: nn.Module, inputs: Any, output: Any) -> None:
        for tensor, data in self._kept:
            tensor.data = data
        self._kept = []


def _own(part: nn.Module) -> Iterator[Tensor]:
    return chain(part.parameters(recurse=False), part.buffers(recurse=False))
