"""python -m workers.tiny.training: retrain the bundled models from nothing, or go on with a run that was cut off."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from workers.tiny.training.recipe import Budget, Recipe

# In the order in which they need each other.
PARTS: Mapping[str, Callable[[Recipe], object]] = {
    "vae": lambda recipe: recipe.vae,
    "decoder": lambda recipe: recipe.finished_vae,
    "encoders": lambda recipe: recipe.encoders,
    "latents": lambda recipe: recipe.latents,
    "sd3": lambda recipe: recipe.sd3,
    "flux-teacher": lambda recipe: recipe.flux_teacher,
    "flux-dev": lambda recipe: recipe.flux_dev,
    "pairs": lambda recipe: recipe.pairs,
    "flux-schnell": lambda recipe: recipe.flux_schnell,
}
ONLY = "train this part and what it needs; once encoders and latents are there, sd3 can run beside the flux parts"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workers.tiny.training", description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("build/tiny-models"), help="folder of checkpoints and curves")
    parser.add_argument("--only", choices=PARTS, help=ONLY)
    parser.add_argument("--device", default=DEVICE, help=f"where to train, {DEVICE} by default")
    arguments = parser.parse_args()
    recipe = Recipe(arguments.run, torch.device(arguments.device), Budget())
    for train_part in [PARTS[arguments.only]] if arguments.only else PARTS.values():
        train_part(recipe)


if __name__ == "__main__":
    main()
