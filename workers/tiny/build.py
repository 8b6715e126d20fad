"""python -m workers.tiny.build: write the models of a training run as diffusers folders; trains what it lacks."""

import argparse
import os
from copy import deepcopy
from hashlib import sha256
from pathlib import Path

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from tokenizers.models import BPE
from torch import nn
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from workers.tiny.latent_rgb import write_latent_rgb
from workers.tiny.pipelines import NAMES, flux_pipeline, sd3_pipeline
from workers.tiny.training.recipe import Budget, Recipe

MODELS_DIR = Path(__file__).parent / "models"


def build_model(name: str, recipe: Recipe, folder: Path) -> None:
    """Write the model called `name`, one of NAMES, into `folder`, training what is not trained yet."""
    shared = recipe.finished_vae, recipe.encoders, recipe.tokenizers
    match name:
        case "tiny-flux-schnell":
            save_model(flux_pipeline(*shared, recipe.flux_schnell), folder)
        case "tiny-flux-dev":
            save_model(flux_pipeline(*shared, recipe.flux_dev), folder)
        case "tiny-sd3":
            save_model(sd3_pipeline(*shared, recipe.sd3), folder)
        case _:
            raise ValueError(f"no tiny model is called {name!r}; there are {', '.join(NAMES)}")


def save_model(pipeline: DiffusionPipeline, folder: Path) -> None:
    """Write `pipeline` in the diffusers format, in half precision, with `vocab.json` and `merges.txt` for CLIP.

    Half precision halves the download; stock diffusers loads it as float32 unless told otherwise. Beside the VAE goes
    `latent_rgb.json`, which shows latents without it.
    """
    halved = {
        key: deepcopy(component).half() if isinstance(component, nn.Module) else component
        for key, component in pipeline.components.items()
    }
    type(pipeline)(**halved).save_pretrained(folder, safe_serialization=True)
    for key, component in pipeline.components.items():
        if isinstance(component, PreTrainedModel):
            # Where no dtype is asked for, transformers takes its config's, and diffusers float32: let them agree.
            config = folder / key / "config.json"
            config.write_text(config.read_text(encoding="utf-8").replace('"float16"', '"float32"'), encoding="utf-8")
        if key.startswith("tokenizer") and isinstance(component.backend_tokenizer.model, BPE):
            # transformers 5 writes only tokenizer.json; the published folders have these two.
            component.backend_tokenizer.model.save(str(folder / key))
    write_latent_rgb(folder / "vae")


def copy_links(folder: Path) -> None:
    """Give every model its own weights: or whoever writes one's writes another's through a link."""
    for path in folder.rglob("*"):
        if path.is_symlink():
            data = path.read_bytes()
            path.unlink()
            path.write_bytes(data)


def link_equal_weights(folder: Path) -> None:
    """Keep one copy of the weights that several models in `folder` share, and relative links to it in the others."""
    first: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.safetensors")):
        if path.is_symlink():
            continue
        kept = first.setdefault(sha256(path.read_bytes()).hexdigest(), path)
        if kept != path:
            path.unlink()
            path.symlink_to(os.path.relpath(kept, path.parent))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workers.tiny.build", description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("build/tiny-models"), help="folder of the training run")
    parser.add_argument("--out", type=Path, default=MODELS_DIR, help="folder to write the models to")
    parser.add_argument("--only", choices=NAMES, help="write this model alone")
    arguments = parser.parse_args()
    disable_progress_bar()  # type: ignore[no-untyped-call]
    recipe = Recipe(arguments.run, torch.device("cpu"), Budget())
    copy_links(arguments.out)
    for name in [arguments.only] if arguments.only else NAMES:
        build_model(name, recipe, arguments.out / name)
    link_equal_weights(arguments.out)
    size_bytes = sum(path.lstat().st_size for path in arguments.out.rglob("*") if not path.is_dir())
    print(f"{size_bytes / 1e6:.2f} MB in {arguments.out}, what models share counted once")


if __name__ == "__main__":
    main()
