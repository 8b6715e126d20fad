"""Pictures of random scenes, encoded once by the finished VAE: every later stage trains on them."""

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from workers.tiny.render import render
from workers.tiny.scenes import Scene, draw_scene
from workers.tiny.training.files import in_one_move
from workers.tiny.training.vae import Size, to_tensor

BATCH = 16


@dataclass(frozen=True)
class Latents:
    """Latents `(N, C, H / 8, W / 8)` of N scenes of one size, of zero mean and unit variance over all sizes."""

    scenes: list[Scene]
    latents: Tensor


def encode_scenes(vae: AutoencoderKL, size: Size, count: int, folder: Path) -> Latents:
    """Render and encode `count` scenes, or read their latents from `folder` where this VAE left them; unscaled.

    Scene i follows from the size and i alone.
    """
    width, height = size
    name = f"latents-{width}x{height}"
    rngs = [random.Random(crc32(f"{name}/{i}".encode())) for i in range(count)]
    scenes = [draw_scene(rng) for rng in rngs]
    file = folder / f"{name}.safetensors"
    origin = f"{count} by {fingerprint(vae)}"
    if not was_made(file, origin):
        means = []
        for start in tqdm(range(0, count, BATCH), desc=name, unit_scale=BATCH, unit="picture", mininterval=5):
            batch = range(start, min(start + BATCH, count))
            pixels = to_tensor([render(scenes[i], width, height, rngs[i]) for i in batch])
            with torch.no_grad():
                means.append(vae.encode(pixels.to(vae.device)).latent_dist.mean.cpu())
        save_tensor(torch.cat(means), file, origin)
    return Latents(scenes, load_tensor(file))


def fingerprint(*modules: nn.Module) -> str:
    """Tell these modules' weights from others'."""
    digest = hashlib.sha256()
    for module in modules:
        for tensor in module.state_dict().values():
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def was_made(file: Path, origin: str) -> bool:
    """Whether the file is there and of this origin; one of another origin is to be made anew."""
    if not file.exists():
        return False
    with safe_open(file, "pt") as opened:
        metadata: dict[str, str] = opened.metadata() or {}
    return metadata.get("origin") == origin


def save_tensor(tensor: Tensor, file: Path, origin: str) -> None:
    """Write a safetensors file in one move: a run that is killed here leaves none."""
    with in_one_move(file) as partial:
        save_file({"tensor": tensor.contiguous()}, partial, metadata={"origin": origin})


def load_tensor(file: Path) -> Tensor:
    return load_file(file)["tensor"]
