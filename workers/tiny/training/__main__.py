"""python -m workers.tiny.training: retrain the bundled models from nothing, or go on with a run that was cut off."""

import argparse
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from workers.tiny.training.recipe import Budget, Recipe

# In the order in which they need each other.
PARTS: Mapping[str, Callable[[Recipe], object]] = {
    "vae": lambda recipe: recipe.vae,
    "encoders": lambda recipe: recipe.encoders,
    "latents": lambda recipe: recipe.latents,
    "sd3": lambda recipe: recipe.sd3,
    "flux-teacher": lambda recipe: recipe.flux_teacher,
    "flux-dev": lambda recipe: recipe.flux_dev,
    "pairs": lambda recipe: recipe.pairs,
    "flux-schnell": lambda recipe: recipe.flux_schnell,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workers.tiny.training", description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("build/tiny-models"), help="folder of checkpoints and curves")
    parser.add_argument("--only", choices=PARTS, help="train this part and what it needs, to run parts side by side")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    arguments.run.mkdir(parents=True, exist_ok=True)
    device = torch.device(arguments.device)
    (arguments.run / "hardware.txt").write_text(f"{_hardware(device)}\n", encoding="utf-8")
    recipe = Recipe(arguments.run, device, Budget())
    for train_part in [PARTS[arguments.only]] if arguments.only else PARTS.values():
        train_part(recipe)


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} CPU cores ({platform.machine()}), {torch.get_num_threads()} of them for each stage"


if __name__ == "__main__":
    main()
