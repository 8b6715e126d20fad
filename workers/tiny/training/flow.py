"""Stage 3, the transformers: rectified flow on latents and captions, with prompts dropped for guidance.

Times are drawn from a logit-normal distribution, as in the SD3 paper (arXiv 2403.03206), one from each of B slices
so that a batch sees all of the line. Most steps see short captions, encoded beforehand, and of their context a few
tokens drawn at random: that costs a third of seeing all of them and teaches almost the same, since most tokens'
features tell the whole prompt. What figures cover counts more than the background, which is most of a picture and
easy, and a layout that the middle has to tell counts beside the velocity; both less while the rates fall, so that the
end is nearly unbiased.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, cached_property
from zlib import crc32

import torch
from torch import Tensor, nn

from workers.tiny.captions import some_facts, write_caption
from workers.tiny.components import WIDTH
from workers.tiny.render import circle_of, paint_shape
from workers.tiny.scenes import Scene
from workers.tiny.tokenizers import CLIP_LENGTH
from workers.tiny.training.conditions import Condition
from workers.tiny.training.latents import Latents
from workers.tiny.training.layout import LayoutHead, PlaceHead, layout, outputs_of
from workers.tiny.training.loop import Draw, Stage
from workers.tiny.training.vae import Size
from workers.tiny.training.velocity import VAE_SCALE

DROPPED_SHARE = 0.1  # of prompts
WHOLE_SHARE = 0.12, 0.3  # of steps with whole contexts, of fresh captions: while the rates hold, and while they fall
LONG_SHARE = 0.33  # of the captions in those
CAPTIONS = 3  # short ones of each scene
FEW_TOKENS = (12, 20), (12, 100)  # of a context, when it is not whole: the latter on a logarithmic scale
SHORT, FULL = 40, 128  # T5 tokens; long prompts need the latter, which is also the models' default
TOKENS_PER_STEP = 3200  # image and context together: small pictures come in large batches
FIGURE_WEIGHT = 6.0, 3.0  # of the loss where a figure is
LAYOUT_WEIGHT = 1.0, 0.5  # of the layout's loss
PLACE_WEIGHT = 1.0, 0.5  # of the places' losses
HOLD = 0.7  # share of the steps before the rates fall
TIME_SHIFT = 1.5  # towards noise
EARLY = {(64, 64): 4, (96, 64): 1, (64, 96): 1, (96, 96): 2, (128, 128): 2}
LATE = {
    (64, 64): 1, (96, 64): 0.5, (64, 96): 0.5, (96, 96): 1, (128, 128): 6,
    (192, 128): 0.7, (128, 192): 0.7, (192, 192): 0.4, (256, 256): 0.5,
}  # fmt: skip
SCENES: Mapping[Size, int] = {
    (64, 64): 6000, (96, 64): 2000, (64, 96): 2000, (96, 96): 3000, (128, 128): 8000,
    (192, 128): 1000, (128, 192): 1000, (192, 192): 500, (256, 256): 400,
}  # fmt: skip

Encode = Callable[[Sequence[str], int], Condition]  # captions, T5 tokens
Velocity = Callable[[Tensor, Tensor, Condition], Tensor]  # noisy latents, times, condition


@dataclass(frozen=True)
class Course:
    """Steps of a stage, in rounds of equal length; in the first `early_steps` pictures are mostly small."""

    steps: int
    rounds: int = 1
    early_steps: int = 3200


@dataclass(frozen=True)
class Batch:
    """Pictures `(B, C, H / 8, W / 8)`, where their figures are `(B, 1, H / 8, W / 8)`, their layouts
    `(B, 2, tokens, cells)`, and their prompts; `nothing` is the empty prompt, as often as there are pictures.
    """

    pictures: Tensor
    figures: Tensor
    layouts: Tensor
    condition: Condition
    nothing: Condition


class Batches:
    """The batches of a stage: latents with their captions' condition, all of one size.

    Captions and layouts take minutes, so they wait for the first batch: a finished stage needs none.
    """

    def __init__(self, latents: Mapping[Size, Latents], encode: Encode, device: torch.device) -> None:
        self._latents, self._encode, self.device = latents, encode, device
        self._nothing = encode([""], SHORT)

    def draw(
        self,
        draw: Draw,
        sizes: Mapping[Size, float],
        dropped: float,
        phase: int,
        long_share: float | None = None,
        least_figures: int = 1,
    ) -> Batch:
        """Draw pictures of one size; some of the captions are empty.

        phase: 0 while the rates hold, 1 while they fall. long_share: of captions with whole contexts, and of steps
        with a few of their tokens; none of these if it is None. least_figures: in each picture.
        """
        rng = draw.rng
        (size,) = rng.choices(list(sizes), list(sizes.values()))
        data = self._latents[size]
        whole, few = draw_context(rng, phase)
        few = min(few, self._nothing.context.shape[1])
        count = TOKENS_PER_STEP // (size[0] * size[1] // 256 + (CLIP_LENGTH + FULL if whole else few))
        fit = [i for i, scene in enumerate(data.scenes) if len(scene.figures) >= least_figures]
        chosen = rng.sample(fit, min(count, len(fit)))
        kept = [rng.random() >= dropped for _ in chosen]
        if whole:
            share = LONG_SHARE if long_share is None else long_share
            captions = [
                write_caption(some_facts(data.scenes[i], rng), rng, share) if keep else ""
                for i, keep in zip(chosen, kept, strict=True)
            ]
            conditions = self._encode([*captions, ""], FULL)
            conditions, nothing = conditions[:-1], conditions[-1:]
        else:
            if long_share is not None and rng.random() < long_share:
                stored, nothing = self._long[size][chosen], self._nothing_long
            else:
                stored = self._short[size][[i * CAPTIONS + rng.randrange(CAPTIONS) for i in chosen]]
                nothing = self._nothing
            length = nothing.context.shape[1]
            tokens = torch.randperm(length, generator=draw.generator)[:few].to(self.device)
            conditions, nothing = stored.pick(tokens), nothing.pick(tokens)
            conditions = conditions.to(self.device).where(torch.tensor(kept, device=self.device), nothing)
        return Batch(
            pictures=data.latents[chosen].to(self.device),
            figures=torch.stack([cover(data.scenes[i], *size) for i in chosen]).to(self.device),
            layouts=self._layouts[size][chosen].to(self.device),
            condition=conditions,
            nothing=nothing.repeat(len(chosen)),
        )

    @cached_property
    def _short(self) -> Mapping[Size, Condition]:
        return {
            size: self._encode_all(size, "captions", CAPTIONS, long_share=0.0, length=SHORT) for size in self._latents
        }

    @cached_property
    def _long(self) -> Mapping[Size, Condition]:
        return {size: self._encode_all(size, "long captions", 1, long_share=1.0, length=FULL) for size in self._latents}

    @cached_property
    def _nothing_long(self) -> Condition:
        return self._encode([""], FULL)

    @cached_property
    def _layouts(self) -> Mapping[Size, Tensor]:
        return {
            size: torch.stack([layout(scene, *size) for scene in data.scenes]) for size, data in self._latents.items()
        }

    def _encode_all(self, size: Size, name: str, count: int, long_share: float, length: int) -> Condition:
        """`count` captions of each scene, one scene after the other, in half precision on the CPU."""
        rng = random.Random(crc32(f"{name} {size}".encode()))
        captions = [
            write_caption(some_facts(scene, rng), rng, long_share)
            for scene in self._latents[size].scenes
            for _ in range(count)
        ]
        parts = [self._encode(captions[i : i + 256], length).half() for i in range(0, len(captions), 256)]
        return Condition(torch.cat([part.context for part in parts]), torch.cat([part.pooled for part in parts]))


@cache
def cover(scene: Scene, width: int, height: int) -> Tensor:
    """1 where a latent would have part in a figure if it were large, `(1, height / 8, width / 8)`; sizes in pixels.

    Not where it has: to draw a small figure too large would cost less than to draw a large one too small.
    """
    wide, high = width // VAE_SCALE, height // VAE_SCALE
    covered = torch.zeros(1, high, wide)
    for figure in scene.figures:
        centre, radius = circle_of(replace(figure, size="large"), wide, high)
        disc = paint_shape("circle", centre, radius + 0.5, wide, high)
        covered[0][torch.from_numpy(disc) > 0] = 1.0
    return covered


def draw_context(rng: random.Random, phase: int) -> tuple[bool, int]:
    """Draw whether a context is whole, and otherwise of how many tokens."""
    low, high = FEW_TOKENS[phase]
    return rng.random() < WHOLE_SHARE[phase], round(math.exp(rng.uniform(math.log(low), math.log(high))))


def even_slices(count: int, generator: torch.Generator) -> Tensor:
    """Numbers `(B,)` from 0 to 1, one from each of B slices of equal width, in random order."""
    return (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count


def draw_times(count: int, generator: torch.Generator) -> Tensor:
    """Times `(B,)` from 0 (picture) to 1 (noise), logit-normal, shifted, one from each slice of equal probability."""
    slices = even_slices(count, generator)
    times = torch.special.ndtri(slices.clamp(1e-4, 1 - 1e-4)).mul(1.2).sigmoid()
    shifted: Tensor = TIME_SHIFT * times / (1 + (TIME_SHIFT - 1) * times)
    return shifted


def add_noise(pictures: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures on their way to noise: `(noisy latents, times (B,), noise)`."""
    noise = torch.randn(pictures.shape, generator=draw.generator).to(pictures.device)
    times = draw_times(len(pictures), draw.generator).to(pictures.device)
    share = times[:, None, None, None]
    return (1 - share) * pictures + share * noise, times, noise


def velocity_loss(velocity: Velocity, batch: Batch, draw: Draw, figure_weight: float) -> Tensor:
    """Mean square error of the velocity; where a figure is it counts `figure_weight` times."""
    noisy, times, noise = add_noise(batch.pictures, draw)
    error = (velocity(noisy, times, batch.condition) - (noise - batch.pictures)).square()
    weight = 1 + (figure_weight - 1) * batch.figures
    loss: Tensor = (error * weight).mean() / weight.mean()
    return loss


def flow_stage(
    name: str,
    transformer: nn.Module,
    middle: nn.Module,
    velocity: Velocity,
    batches: Batches,
    course: Course,
    placed: Sequence[nn.Module] = (),
) -> Stage:
    """`middle` is the transformer's block after which its image tokens have to tell the layout; after those `placed`
    they have to tell where they are.
    """
    head = LayoutHead(WIDTH).to(batches.device)
    places = [PlaceHead(WIDTH).to(batches.device) for _ in placed]

    def loss(draw: Draw) -> Tensor:
        sizes = EARLY if draw.step < course.early_steps else LATE
        phase = 1 if stage.fallen(draw.step) else 0
        batch = batches.draw(draw, sizes, DROPPED_SHARE, phase)
        count = batch.layouts.shape[2]
        with ExitStack() as stack:
            outputs, *others = [stack.enter_context(outputs_of(block)) for block in (middle, *placed)]
            total = velocity_loss(velocity, batch, draw, FIGURE_WEIGHT[phase])
        total = total + LAYOUT_WEIGHT[phase] * head.loss(outputs[0][:, -count:], batch.layouts)
        rows, columns = (side // 2 for side in batch.pictures.shape[2:])
        for place, seen in zip(places, others, strict=True):
            total = total + PLACE_WEIGHT[phase] * place.loss(seen[0][:, -count:], rows, columns)
        return total

    module = nn.ModuleDict({"transformer": transformer, "layout": head, "places": nn.ModuleList(places)})
    stage = Stage(name, module, loss, course.steps, matrix_rate=8e-3, hold=HOLD, rounds=course.rounds)
    return stage
