"""Stage 5, tiny-flux-schnell: straight paths, so that one to four steps do the work of many.

Reflow as in Liu et al., "Flow Straight and Fast" (arXiv 2209.03003), applied to text-to-image in InstaFlow (arXiv
2309.06380): the guided teacher draws pictures from noise in many steps; the student learns the straight line from each
noise to the picture that came of it.
"""

import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from torch import Tensor
from tqdm import tqdm

from workers.tiny.captions import some_facts, write_caption
from workers.tiny.components import LATENT_CHANNELS
from workers.tiny.scenes import draw_scene
from workers.tiny.training.flow import FULL, TOKENS_PER_STEP, Encode, draw_context, even_slices
from workers.tiny.training.latents import fingerprint, load_tensor, save_tensor, was_made
from workers.tiny.training.loop import Draw, Stage
from workers.tiny.training.vae import Size
from workers.tiny.training.velocity import VAE_SCALE, flux_velocity

GUIDANCE = 3.5
TEACHER_STEPS = 16
TEACHER_SHIFT = 1.6  # FLUX.1-dev's at 64 image tokens: exp(0.47)
PAIR_TOKENS = 32  # of the context, when pairs are drawn
PAIRS: Mapping[Size, int] = {
    (64, 64): 800, (96, 64): 300, (64, 96): 300, (96, 96): 500, (128, 128): 3200,
    (192, 128): 500, (128, 192): 500, (192, 192): 300, (256, 256): 300,
}  # fmt: skip


@dataclass(frozen=True)
class Pairs:
    """N noises, the pictures that the teacher made of them `(N, C, H / 8, W / 8)`, and what it was asked for."""

    captions: list[str]
    noises: Tensor
    pictures: Tensor


def draw_pairs(teacher: FluxTransformer2DModel, encode: Encode, size: Size, count: int, folder: Path) -> Pairs:
    """Have the teacher draw `count` pictures of one size, or read them from `folder` where it left them."""
    width, height = size
    name = f"pairs-{width}x{height}"
    rng = random.Random(crc32(name.encode()))
    captions = [write_caption(some_facts(draw_scene(rng), rng), rng, long_share=0.1) for _ in range(count)]
    shape = (count, LATENT_CHANNELS, height // VAE_SCALE, width // VAE_SCALE)
    noises = torch.randn(shape, generator=torch.Generator().manual_seed(crc32(name.encode())))
    file = folder / f"{name}.safetensors"
    origin = f"{count} by {fingerprint(teacher)}"
    if not was_made(file, origin):
        batch = max(4, TOKENS_PER_STEP // (width * height // 256 + PAIR_TOKENS))
        pictures = [
            _draw(teacher, encode, captions[start : start + batch], noises[start : start + batch])
            for start in tqdm(range(0, count, batch), desc=name, unit_scale=batch, unit="picture", mininterval=5)
        ]
        save_tensor(torch.cat(pictures), file, origin)
    return Pairs(captions, noises, load_tensor(file))


@torch.no_grad()
def _draw(teacher: FluxTransformer2DModel, encode: Encode, captions: list[str], noises: Tensor) -> Tensor:
    """Euler's method from noise to picture."""
    device = teacher.device
    condition = encode(captions, FULL)
    tokens = torch.linspace(0, condition.context.shape[1] - 1, PAIR_TOKENS).long()  # evenly spread
    condition = condition.pick(tokens)
    latents = noises.to(device)
    even = torch.linspace(1, 0, TEACHER_STEPS + 1)
    times = TEACHER_SHIFT * even / (1 + (TEACHER_SHIFT - 1) * even)
    guidance = torch.full((len(captions),), GUIDANCE, device=device)
    for now, later in itertools.pairwise(times):
        velocity = flux_velocity(teacher, latents, now.expand(len(captions)).to(device), condition, guidance)
        latents = latents + (later - now).to(device) * velocity
    return latents.cpu()


@torch.no_grad()
def start_student(student: FluxTransformer2DModel, teacher: FluxTransformer2DModel) -> None:
    """Make the student, which takes no guidance, the teacher at GUIDANCE: its embedding becomes part of a bias."""
    weights = {name: value for name, value in teacher.state_dict().items() if "guidance_embedder" not in name}
    student.load_state_dict(weights)
    embed = teacher.time_text_embed
    constant = embed.guidance_embedder(embed.time_proj(torch.tensor([GUIDANCE * 1000], device=teacher.device)))
    student.time_text_embed.text_embedder.linear_2.bias += constant[0]


def reflow_stage(
    student: FluxTransformer2DModel, pairs: Mapping[Size, Pairs], encode: Encode, device: torch.device, steps: int
) -> Stage:
    def loss(draw: Draw) -> Tensor:
        rng = draw.rng
        (size,) = rng.choices(list(pairs), [len(p.captions) for p in pairs.values()])
        data = pairs[size]
        whole, few = draw_context(rng, phase=1)
        count = max(4, TOKENS_PER_STEP // (size[0] * size[1] // 256 + (FULL if whole else few)))
        chosen = rng.sample(range(len(data.captions)), min(count, len(data.captions)))
        condition = encode([data.captions[i] for i in chosen], FULL)
        if not whole:
            tokens = torch.randperm(condition.context.shape[1], generator=draw.generator)[:few]
            condition = condition.pick(tokens)
        noises, pictures = data.noises[chosen].to(device), data.pictures[chosen].to(device)
        # Denser towards noise, where the first of few steps is taken.
        times = (1 - even_slices(len(chosen), draw.generator) ** 1.5).to(device)
        share = times[:, None, None, None]
        noisy = (1 - share) * pictures + share * noises
        return (flux_velocity(student, noisy, times, condition) - (noises - pictures)).square().mean()

    return Stage("flux-schnell", student, loss, steps, matrix_rate=3e-3)
