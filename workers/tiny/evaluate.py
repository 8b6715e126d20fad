"""python -m workers.tiny.evaluate: do the tiny models draw what the prompt says?

Reads pixels: draws prompts that were held out of training, reads the scene back from each picture, and compares.
Prints tables; writes evaluation.json, strips and the worst failures to --out.
"""

import argparse
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from workers.tiny import exhibits, tables
from workers.tiny.adherence import means
from workers.tiny.build import MODELS_DIR
from workers.tiny.drawing import Artist
from workers.tiny.evaluation import (
    by_length,
    by_size,
    by_steps_and_guidance,
    diversity,
    draw_and_score,
    faults,
    measure_the_measure,
    measure_vae,
    seconds_alone,
)
from workers.tiny.pipelines import NAMES
from workers.tiny.prompts import held_out_prompts

RESULTS = "evaluation.json"
LEAST_PROMPTS = 50
STRIPS = "strips"  # of pictures, for people
# What is compared with the defaults on all prompts: guidance against none, dev's usual steps, schnell's fewest.
CONTRASTS: Mapping[str, Mapping[str, float]] = {
    "tiny-sd3": {"guidance_scale": 1.0},
    "tiny-flux-dev": {"num_inference_steps": 28},
    "tiny-flux-schnell": {"num_inference_steps": 1},
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m workers.tiny.evaluate", description=__doc__)
    parser.add_argument("--models", type=Path, default=MODELS_DIR, help="folder of the models")
    parser.add_argument("--only", choices=(*NAMES, STRIPS), help="evaluate this model alone, or draw the strips alone")
    parser.add_argument("--prompts", type=int, default=500, help="held-out prompts with one figure")
    parser.add_argument("--two", type=int, default=200, help="held-out prompts with two figures")
    parser.add_argument("--grid", type=int, default=50, help="prompts for each steps x guidance, and each size")
    parser.add_argument("--out", type=Path, default=Path("build/tiny-evaluation"), help="folder for results")
    arguments = parser.parse_args()
    if min(arguments.prompts, arguments.two) < LEAST_PROMPTS:
        parser.error(f"fewer than {LEAST_PROMPTS} prompts say nothing about the measure, let alone about a model")
    if not 1 <= arguments.grid <= arguments.prompts:
        parser.error(f"--grid {arguments.grid} is outside 1 to {arguments.prompts}, the number of --prompts")
    arguments.out.mkdir(parents=True, exist_ok=True)
    quiet()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if arguments.only != STRIPS:
        names = [arguments.only] if arguments.only else list(NAMES)
        if not _measure(arguments, names[0]):
            return 1
        artist = Artist(arguments.models, names, device)
        models = {}
        for name in names:
            models[name] = _evaluate(artist, name, arguments)
            _add(arguments.out / RESULTS, {"models": {name: models[name]}})
        print(f"\nAdherence to held-out prompts, in percent\n\n{tables.default_table(models)}")
        for name in names:
            print(_in_full(name, models[name]))
    if arguments.only in (None, STRIPS):
        artist = Artist(arguments.models, NAMES, device)
        exhibits.save(exhibits.steps_strip(artist), arguments.out / "steps.png")
        exhibits.save(exhibits.guidance_strip(artist), arguments.out / "guidance.png")
        exhibits.save(exhibits.prompt_grid(artist), arguments.out / "prompts.png")
    print(f"\nWhat came of it is in {arguments.out}.")
    return 0


def _measure(arguments: argparse.Namespace, name: str) -> bool:
    """Measure the measure and the VAE; false when the measure is not to be trusted."""
    measure = {
        "one": measure_the_measure(arguments.prompts, figures=1),
        "two": measure_the_measure(arguments.two, figures=2),
    }
    print(f"\nThe measure itself, in percent\n\n{tables.measure_table(measure)}\n")
    if troubles := [trouble for measured in measure.values() for trouble in faults(measured)]:
        print(f"The measure itself is wrong: {'; '.join(troubles)}.")
        return False
    vae = measure_vae(AutoencoderKL.from_pretrained(arguments.models / name / "vae"), 200)
    print(f"The VAE: {vae['psnr_db']:.1f} dB, joint {vae['adherence']['joint']:.1%}\n")
    _add(arguments.out / RESULTS, {"measure": measure, "vae": vae})
    return True


def quiet() -> None:
    """Long prompts are cut for CLIP on purpose here: no warning for each."""
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.getLogger("diffusers").setLevel(logging.ERROR)


def _evaluate(artist: Artist, name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    one, two = held_out_prompts(arguments.prompts, figures=1), held_out_prompts(arguments.two, figures=2)
    singles = draw_and_score(artist, name, one, f"{name}, one figure")
    pairs = draw_and_score(artist, name, two, f"{name}, two figures")
    contrast = draw_and_score(artist, name, one, f"{name}, {CONTRASTS[name]}", **CONTRASTS[name])
    unplaced = {
        figures: draw_and_score(
            artist, name, held_out_prompts(arguments.two // 2, count, placed=False), f"{name}, {figures}, no place"
        )
        for figures, count in (("one", 1), ("two", 2))
    }
    exhibits.save(exhibits.failures([*singles, *pairs]), arguments.out / f"{name}-failures.png")
    return {
        "prompts": {
            "one": arguments.prompts,
            "two": arguments.two,
            "unplaced": arguments.two // 2,
            "grid": arguments.grid,
        },
        "one": means(result.score for result in singles),
        "two": means(result.score for result in pairs),
        "unplaced": {figures: means(result.score for result in results) for figures, results in unplaced.items()},
        "contrast": {**CONTRASTS[name], **means(result.score for result in contrast)},
        "seconds": seconds_alone(Artist(arguments.models, [name], torch.device("cpu")), name),
        "length": by_length(artist, name, singles),
        "grid": by_steps_and_guidance(artist, name, one[: arguments.grid]),
        "sizes": by_size(artist, name, one[: arguments.grid]),
        "diversity": diversity(artist, name),
    }


def _in_full(name: str, model: Mapping[str, Any]) -> str:
    """Every table of one model."""
    margin = tables.margin(model["prompts"]["grid"])
    parts = (
        f"{name}, by steps and guidance; each number may be off by {margin:.0f}",
        tables.full_grid_table(model["grid"]),
        f"{name}, by size",
        tables.size_table(model["sizes"]),
        f"{name}, many seeds: {model['diversity']}",
    )
    return "\n" + "\n\n".join(parts)


def _add(path: Path, found: Mapping[str, Any]) -> None:
    """Put results beside those that are there: of other models, perhaps evaluated side by side with this one."""
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    models = {**results.get("models", {}), **found.get("models", {})}
    path.write_text(json.dumps({**results, **found, "models": models}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
