"""Stage 4, SD3 once more: prompts that are longer than CLIP reads.

In nine of ten steps of the stage before, CLIP's features tell all that T5's do, and they are the easier to heed: of
held-out prompts whose end only T5 reads, 3 of 36 came out right then. Here most captions are of that kind.
"""

from torch import Tensor, nn

from workers.tiny.training.flow import DROPPED_SHARE, FIGURE_WEIGHT, LATE, Batches, Velocity, velocity_loss
from workers.tiny.training.loop import Draw, Stage

LONG_SHARE = 0.67  # of captions; the others keep what was learnt before


def long_prompts_stage(name: str, transformer: nn.Module, velocity: Velocity, batches: Batches, steps: int) -> Stage:
    def loss(draw: Draw) -> Tensor:
        batch = batches.draw(draw, LATE, DROPPED_SHARE, phase=1, long_share=LONG_SHARE)
        return velocity_loss(velocity, batch, draw, FIGURE_WEIGHT[1])

    return Stage(name, transformer, loss, steps, matrix_rate=4e-3, hold=0.5)
