"""What stands where: labels that the middle of a transformer has to tell while it learns.

A transformer that only learns velocities finds backgrounds soon and figures late: they are a small part of what it is
asked for, under noise. Asked in its middle for the picture's layout besides, it learns from the start to bring what
the prompt says to the place where it belongs. The idea is that of representation alignment (REPA, arXiv 2410.06940),
where the middle has to agree with a large vision model; here the renderer knows the answer. The head is thrown away.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from workers.tiny.render import circle_of, paint_shape, render
from workers.tiny.scenes import COLOURS, SHAPES, Scene

CELL = 4  # pixels: the side of what has one label
TOKEN = 16  # pixels: the side of what one token of a transformer sees
PALETTE = np.array(list(COLOURS.values()), dtype=np.float32)
_SPREAD = 5.0  # tokens: the unit in which places are told, so that heads begin at the right scale
KINDS = (len(COLOURS), len(SHAPES) + 1)  # of labels: colours; shapes, or none


def layout(scene: Scene, width: int, height: int) -> Tensor:
    """Label each cell of a picture: `(2, tokens, cells of a token)`, indices of colours and of shapes, 0 for none."""
    high, wide = height // CELL, width // CELL
    means = render(scene, width, height).astype(np.float32).reshape(high, CELL, wide, CELL, 3).mean((1, 3))
    colours = np.square(means[:, :, None] - PALETTE).sum(-1).argmin(-1)
    shapes = np.zeros((high, wide), dtype=np.int64)
    for figure in scene.figures:
        cover = paint_shape(figure.shape, *circle_of(figure, width, height), width, height)
        shapes[cover.reshape(high, CELL, wide, CELL).mean((1, 3)) > 0.5] = SHAPES.index(figure.shape) + 1
    labels = torch.from_numpy(np.stack([colours, shapes]))
    side = TOKEN // CELL
    tokens = labels.reshape(2, high // side, side, wide // side, side).transpose(2, 3)
    return tokens.reshape(2, -1, side * side).to(torch.uint8)


class LayoutHead(nn.Module):
    """Tells the layout from a transformer's image tokens, `(B, tokens, width)`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.tell = nn.Linear(width, (TOKEN // CELL) ** 2 * sum(KINDS))

    def loss(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy against labels `(B, 2, tokens, cells)`."""
        told = self.tell(self.norm(tokens)).unflatten(-1, (labels.shape[-1], sum(KINDS)))
        parts = zip(told.split(KINDS, dim=-1), labels.unbind(1), strict=True)
        return torch.stack([cross_entropy(part.flatten(0, 2), label.flatten().long()) for part, label in parts]).sum()


class PlaceHead(nn.Module):
    """Tells each image token's own place from the tokens, `(B, tokens, width)`.

    Flux has no position embedding: a token learns where it is only from how its queries turn against those of the
    prompt, which are all at the origin. Nothing in a picture's velocity teaches that soon; this does.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.tell = nn.Linear(width, 2)

    def loss(self, tokens: Tensor, rows: int, columns: int) -> Tensor:
        """Mean square of the distance from the place, tokens squared, over _SPREAD."""
        grid = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).to(tokens)
        error: Tensor = self.tell(self.norm(tokens)) * _SPREAD - grid
        return error.square().mean() / _SPREAD


@contextmanager
def outputs_of(block: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what the block gives: the image's tokens, where it keeps them apart from the context, else all.

    The image's come last: `(B, tokens, width)` or `(B, context + tokens, width)`.
    """
    outputs: list[Tensor] = []

    def collect(_block: nn.Module, _given: object, output: Tensor | tuple[Tensor, ...]) -> None:
        outputs.append(output if isinstance(output, Tensor) else output[-1])

    hook = block.register_forward_hook(collect)
    try:
        yield outputs
    finally:
        hook.remove()
