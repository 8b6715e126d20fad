"""python -m workers.tiny.build: write the bundled tiny models as diffusers folders, the same bytes each time."""

import argparse
from pathlib import Path

from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from tokenizers.models import BPE
from torch import nn
from transformers.utils.logging import disable_progress_bar

from workers.tiny.captions import write_captions
from workers.tiny.card import model_card
from workers.tiny.pipelines import NAMES, make_pipeline
from workers.tiny.weights import fill_pipeline

MODELS_DIR = Path(__file__).parent / "models"


def build_model(name: str, folder: Path) -> None:
    """Write the model called `name` into `folder`, with random weights."""
    captions = list(write_captions(seed=0, count=4000))
    pipeline = make_pipeline(name, captions)
    fill_pipeline(pipeline, name)
    save_model(pipeline, name, folder)


def save_model(pipeline: DiffusionPipeline, name: str, folder: Path) -> None:
    """Write `pipeline` in the diffusers format, with `vocab.json` and `merges.txt` for CLIP and a model card."""
    pipeline.save_pretrained(folder, safe_serialization=True)
    parameters = 0
    for key, component in pipeline.components.items():
        if isinstance(component, nn.Module):
            parameters += sum(parameter.numel() for parameter in component.parameters())
        elif key.startswith("tokenizer") and isinstance(component.backend_tokenizer.model, BPE):
            # transformers 5 writes only tokenizer.json; the published folders have these two.
            component.backend_tokenizer.model.save(str(folder / key))
    card = model_card(name, type(pipeline).__name__, parameters)
    (folder / "README.md").write_text(card, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workers.tiny.build", description=__doc__)
    parser.add_argument("--out", type=Path, default=MODELS_DIR, help="folder to write the models to")
    out: Path = parser.parse_args().out
    disable_progress_bar()  # type: ignore[no-untyped-call]
    for i, name in enumerate(NAMES, start=1):
        folder = out / name
        print(f"[{i}/{len(NAMES)}] {name} ...", end=" ", flush=True)
        build_model(name, folder)
        size_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        print(f"{size_bytes / 1e6:.2f} MB in {folder}")


if __name__ == "__main__":
    main()
