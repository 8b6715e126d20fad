"""python -m workers.tiny.build: write the models of a training run as diffusers folders; trains what it lacks."""

import argparse
from copy import deepcopy
from pathlib import Path

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from tokenizers.models import BPE
from torch import nn
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

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

    Half precision halves the download; stock diffusers loads it as float32 unless told otherwise.
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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workers.tiny.build", description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("build/tiny-models"), help="folder of the training run")
    parser.add_argument("--out", type=Path, default=MODELS_DIR, help="folder to write the models to")
    parser.add_argument("--only", choices=NAMES, help="write this model alone")
    arguments = parser.parse_args()
    disable_progress_bar()  # type: ignore[no-untyped-call]
    recipe = Recipe(arguments.run, torch.device("cpu"), Budget())
    for name in [arguments.only] if arguments.only else NAMES:
        folder = arguments.out / name
        build_model(name, recipe, folder)
        size_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        print(f"{name}: {size_bytes / 1e6:.2f} MB in {folder}")


if __name__ == "__main__":
    main()
