"""python -m workers.tiny.training: retrain the bundled models from nothing, or go on with a run that was cut off."""

import argparse
from pathlib import Path

import torch

from workers.tiny.training.recipe import Budget, Recipe

PARTS = ("vae", "encoders", "latents", "sd3", "flux_teacher", "flux_dev", "pairs", "flux_schnell")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workers.tiny.training", description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("build/tiny-models"), help="folder of checkpoints and curves")
    parser.add_argument("--only", choices=PARTS, help="train this part and what it needs, to run parts side by side")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    arguments.run.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(arguments.run, torch.device(arguments.device), Budget())
    for part in [arguments.only] if arguments.only else PARTS:
        getattr(recipe, part)


if __name__ == "__main__":
    main()
