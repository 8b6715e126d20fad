"""Stage 3, the transformers: rectified flow on latents and captions, with prompts dropped for guidance.

Times are drawn from a logit-normal distribution, as in the SD3 paper (arXiv 2403.03206), one from each of B slices
so that a batch sees all of the line; a share of the steps sees a random few of the context's tokens, which costs a
third of seeing all of them and teaches the same, since each token's features tell the whole prompt.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from workers.tiny.captions import some_facts, write_caption
from workers.tiny.tokenizers import CLIP_LENGTH
from workers.tiny.training.conditions import Condition
from workers.tiny.training.latents import Latents, Size
from workers.tiny.training.loop import Draw, Stage

DROPPED_SHARE = 0.1  # of prompts
FULL_CONTEXT_SHARE = 0.15  # of steps
LONG_SHARE = 0.3  # of steps, in which a third of the prompts are long
FEW_TOKENS = (24, 40)  # of the context, in the other steps
SHORT, FULL = 40, 128  # T5 tokens; long prompts need the latter, which is also the models' default
TOKENS_PER_STEP = 3200  # image and context together: small pictures come in large batches
TIME_SHIFT = 1.5  # towards noise
EARLY_SHARE = 0.35  # of the steps, in which pictures are mostly small
EARLY = {(64, 64): 4, (96, 64): 1, (64, 96): 1, (96, 96): 2, (128, 128): 2}
LATE = {
    (64, 64): 1, (96, 64): 0.5, (64, 96): 0.5, (96, 96): 1, (128, 128): 6,
    (192, 128): 0.7, (128, 192): 0.7, (192, 192): 0.4, (256, 256): 0.5,
}  # fmt: skip
SCENES: Mapping[Size, int] = {
    (64, 64): 2000, (96, 64): 800, (64, 96): 800, (96, 96): 1200, (128, 128): 8000,
    (192, 128): 1000, (128, 192): 1000, (192, 192): 500, (256, 256): 400,
}  # fmt: skip

Encode = Callable[[Sequence[str], int], Condition]  # captions, T5 tokens
Velocity = Callable[[Tensor, Tensor, Condition], Tensor]  # noisy latents, times, condition


class Batches:
    """The batches of a stage: latents with their captions' condition, all of one size."""

    def __init__(self, latents: Mapping[Size, Latents], encode: Encode, device: torch.device) -> None:
        self._latents, self._encode, self._device = latents, encode, device

    def draw(self, draw: Draw, sizes: Mapping[Size, float], dropped: float) -> tuple[Tensor, Condition, Condition]:
        """Pictures `(B, 16, H / 8, W / 8)`, their condition, and that of no prompt; some of the captions are empty."""
        rng = draw.rng
        (size,) = rng.choices(list(sizes), list(sizes.values()))
        long, whole = rng.random() < LONG_SHARE, rng.random() < FULL_CONTEXT_SHARE
        few = rng.randint(*FEW_TOKENS)
        image_tokens = size[0] * size[1] // 256
        t5_length = FULL if long or whole else SHORT
        count = max(4, TOKENS_PER_STEP // (image_tokens + (CLIP_LENGTH + FULL if whole else few)))
        data = self._latents[size]
        chosen = rng.sample(range(len(data.scenes)), min(count, len(data.scenes)))
        captions = [
            ""
            if rng.random() < dropped
            else write_caption(some_facts(data.scenes[i], rng), rng, long_share=0.33 if long else 0.0)
            for i in chosen
        ]
        conditions = self._encode([*captions, ""], t5_length)
        if not whole:
            tokens = torch.randperm(conditions.context.shape[1], generator=draw.generator)[:few]
            conditions = conditions.pick(tokens.to(self._device))
        return data.latents[chosen].to(self._device), conditions[:-1], conditions[-1:].repeat(len(captions))


def draw_times(count: int, generator: torch.Generator) -> Tensor:
    """Times `(B,)` from 0 (picture) to 1 (noise), logit-normal, shifted, one from each slice of equal probability."""
    slices = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
    times = torch.special.ndtri(slices.clamp(1e-4, 1 - 1e-4)).mul(1.2).sigmoid()
    shifted: Tensor = TIME_SHIFT * times / (1 + (TIME_SHIFT - 1) * times)
    return shifted


def add_noise(pictures: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures on their way to noise: `(noisy latents, times (B,), noise)`."""
    noise = torch.randn(pictures.shape, generator=draw.generator).to(pictures.device)
    times = draw_times(len(pictures), draw.generator).to(pictures.device)
    share = times[:, None, None, None]
    return (1 - share) * pictures + share * noise, times, noise


def flow_stage(name: str, transformer: nn.Module, velocity: Velocity, batches: Batches, steps: int) -> Stage:
    def loss(draw: Draw) -> Tensor:
        sizes = EARLY if draw.step < EARLY_SHARE * steps else LATE
        pictures, condition, _ = batches.draw(draw, sizes, dropped=DROPPED_SHARE)
        noisy, times, noise = add_noise(pictures, draw)
        return (velocity(noisy, times, condition) - (noise - pictures)).square().mean()

    return Stage(name, transformer, loss, steps, matrix_rate=4e-3)
