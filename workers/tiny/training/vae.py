"""Stage 1, the VAE: squared and absolute error of rendered scenes, and a little KL.

Most of a picture is background, which is learnt soon; so most steps see windows around figures, where the edges are.
Then the decoder goes on alone, on whole and mostly small pictures: what makes a figure of a dozen pixels is in its
latents, but costs little error when it is missing. Nothing is learnt about text here.
"""

import random
from collections.abc import Mapping
from dataclasses import replace

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from workers.tiny.render import Picture, render
from workers.tiny.scenes import CENTRES, Scene, draw_scene
from workers.tiny.training.loop import Draw, Stage

Size = tuple[int, int]  # width, height in pixels
PIXELS_PER_STEP = 16 * 64 * 64
# (width, height) and how often: mostly small, since convolutions carry over to larger pictures.
WHOLE = {(64, 64): 5, (96, 64): 1, (64, 96): 1, (128, 128): 2}
KL_WEIGHT = 1e-3  # more than an ELBO asks for: what the transformers need not draw exactly, they learn sooner
WINDOW = 64  # pixels, of a picture of one of these sides
SIDES = {96: 1, 128: 3, 192: 1}
WHOLE_DECODED = {(64, 64): 5, (96, 64): 1, (64, 96): 1, (96, 96): 1, (128, 128): 2}
FIGURE_WEIGHT = 8.0  # of the decoder's error where a figure is
WHOLE_SHARE = 0.3  # of the steps with windows: what normalisation and attention see must not drift


def vae_stage(vae: AutoencoderKL, device: torch.device, steps: int) -> Stage:
    def loss(draw: Draw) -> Tensor:
        pixels = _whole_or_windows(draw.rng).to(device)
        posterior = vae.encode(pixels).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=draw.generator).to(device)
        error = vae.decode(posterior.mean + posterior.std * noise).sample - pixels
        kl = posterior.kl().mean() / noise[0].numel()
        loss: Tensor = error.square().mean() + 0.1 * error.abs().mean() + KL_WEIGHT * kl
        return loss

    return Stage("vae", vae, loss, steps, matrix_rate=5e-3)


def decoder_stage(vae: AutoencoderKL, device: torch.device, steps: int) -> Stage:
    """Of the decoder; the encoder stays as it is, and with it the latents that all the rest learns from."""

    def loss(draw: Draw) -> Tensor:
        (width, height), scenes = _scenes(WHOLE_DECODED, draw.rng)
        pixels = to_tensor([render(scene, width, height, draw.rng) for scene in scenes]).to(device)
        empty = to_tensor([render(replace(scene, figures=()), width, height) for scene in scenes]).to(device)
        figures = ((pixels - empty).abs().amax(1, keepdim=True) > 0).float()
        with torch.no_grad():
            posterior = vae.encode(pixels).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=draw.generator).to(device)
        error = vae.decode(posterior.mean + posterior.std * noise).sample - pixels
        weights = 1 + (FIGURE_WEIGHT - 1) * figures
        loss: Tensor = (weights * (error.square() + 0.1 * error.abs())).mean() / weights.mean()
        return loss

    return Stage("decoder", vae.decoder, loss, steps, matrix_rate=5e-3)


def to_tensor(pictures: list[Picture]) -> Tensor:
    """Pictures to (B, 3, H, W) from -1 to 1, as AutoencoderKL takes them."""
    return torch.stack([torch.from_numpy(picture) for picture in pictures]).permute(0, 3, 1, 2) / 127.5 - 1


def _scenes(sizes: Mapping[Size, int], rng: random.Random) -> tuple[Size, list[Scene]]:
    """One of the sizes, and as many scenes as a step has pixels for."""
    ((width, height),) = rng.choices(list(sizes), list(sizes.values()))
    return (width, height), [draw_scene(rng) for _ in range(PIXELS_PER_STEP // (width * height))]


def _whole(rng: random.Random) -> Tensor:
    (width, height), scenes = _scenes(WHOLE, rng)
    return to_tensor([render(scene, width, height, rng) for scene in scenes])


def _whole_or_windows(rng: random.Random) -> Tensor:
    if rng.random() < WHOLE_SHARE:
        return _whole(rng)
    return to_tensor([_window(rng) for _ in range(PIXELS_PER_STEP // WINDOW**2)])


def _window(rng: random.Random) -> Picture:
    """A window onto a picture, with the centre of one of its figures somewhere in it."""
    (side,) = rng.choices(list(SIDES), list(SIDES.values()))
    scene = draw_scene(rng)
    figure = rng.choice(scene.figures)
    picture = render(scene, side, side, rng)
    left, top = (
        min(max(round(CENTRES[cell] * side - rng.uniform(0.2, 0.8) * WINDOW), 0), side - WINDOW)
        for cell in (figure.column, figure.row)
    )
    return picture[top : top + WINDOW, left : left + WINDOW]
