"""What the middle of a transformer is asked to tell: what stands where, and its own place."""

import torch

from workers.tiny.scenes import COLOURS, SHAPES, Background, Figure, Scene
from workers.tiny.training.layout import LayoutHead, PlaceHead, layout, outputs_of


def test_layouts_say_what_stands_in_each_cell() -> None:
    scene = Scene(Background("plain", "blue", None), (Figure("square", "red", "large", 1, 2),))
    labels = layout(scene, 128, 64)
    # 64 x 128 pixels are 4 x 8 tokens of 4 x 4 cells.
    assert labels.shape == (2, 32, 16)
    cells = labels.reshape(2, 4, 8, 4, 4).transpose(2, 3).reshape(2, 16, 32)
    colours, shapes = cells[0], cells[1]
    names = list(COLOURS)
    # The figure's centre lies at 0.73 of the width and half the height.
    assert (int(colours[8, 23]), int(shapes[8, 23])) == (names.index("red"), SHAPES.index("square") + 1)
    assert (int(colours[0, 0]), int(shapes[0, 0])) == (names.index("blue"), 0)
    assert 0.03 < (shapes > 0).float().mean() < 0.1


def test_the_layout_head_learns_from_the_block_and_leaves_no_trace() -> None:
    block = torch.nn.Linear(8, 8)
    with outputs_of(block) as outputs:
        block(torch.randn(2, 5, 8))
    block(torch.randn(2, 5, 8))
    assert len(outputs) == 1
    head = LayoutHead(8)
    loss = head.loss(outputs[0][:, -4:], torch.zeros(2, 2, 4, 16, dtype=torch.uint8))
    loss.backward()  # type: ignore[no-untyped-call]
    assert block.weight.grad is not None
    assert head.tell.weight.grad is not None


def test_a_token_can_be_taught_its_place() -> None:
    grid = torch.cartesian_prod(torch.arange(4.0), torch.arange(8.0))
    head = PlaceHead(8)
    blind = head.loss(torch.randn(2, 32, 8), 4, 8)
    tokens = torch.cat([grid, torch.randn(32, 6)], dim=1).repeat(2, 1, 1)
    optimizer = torch.optim.Adam(head.parameters(), 0.05)
    for _ in range(150):
        optimizer.zero_grad()
        loss = head.loss(tokens, 4, 8)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert loss < 0.2 * blind
