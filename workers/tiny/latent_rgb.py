"""python -m workers.tiny.latent_rgb: fit the map that shows latents without the VAE, and write it beside each VAE."""

import argparse
import random
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch.nn.functional import avg_pool2d

from workers.pipelines.latent_rgb import FILE_NAME, LatentRGB
from workers.tiny.pipelines import NAMES
from workers.tiny.render import render
from workers.tiny.scenes import draw_scene
from workers.tiny.training.vae import to_tensor

SCENES = 40
SIDE = 128  # pixels; smaller pictures would be edges for the most part, and those fit no map
DIGITS = 4


@torch.no_grad()
def fit_latent_rgb(vae: AutoencoderKL) -> LatentRGB:
    """Least squares from the latents of rendered scenes to what the VAE makes of them, an eighth as wide."""
    rng = random.Random("latent rgb")
    pixels = to_tensor([render(draw_scene(rng), SIDE, SIDE, rng) for _ in range(SCENES)])
    means = vae.encode(pixels).latent_dist.mean
    small = avg_pool2d(vae.decode(means).sample.clamp(-1, 1), SIDE // means.shape[-1])
    latents = (means - vae.config.shift_factor) * vae.config.scaling_factor
    inputs = torch.cat([latents, torch.ones_like(latents[:, :1])], dim=1).movedim(1, -1).flatten(0, 2)
    solution = torch.linalg.lstsq(inputs.double(), small.movedim(1, -1).flatten(0, 2).double()).solution
    *factors, bias = [[round(value, DIGITS) for value in row] for row in solution.tolist()]
    return LatentRGB.model_validate({"factors": factors, "bias": bias})


def write_latent_rgb(folder: Path) -> None:
    """Fit the map of the VAE in this folder, and write it there."""
    vae = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32)
    text = fit_latent_rgb(vae).model_dump_json(indent=2)
    (folder / FILE_NAME).write_text(text + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workers.tiny.latent_rgb", description=__doc__)
    parser.add_argument("--models", type=Path, default=Path(__file__).parent / "models", help="folder of the models")
    arguments = parser.parse_args()
    for name in NAMES:
        write_latent_rgb(arguments.models / name / "vae")


if __name__ == "__main__":
    main()
