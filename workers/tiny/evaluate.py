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
    measure_the_measure,
    measure_vae,
    seconds_alone,
)
from workers.tiny.pipelines import NAMES
from workers.tiny.prompts import held_out_prompts

RESULTS = "evaluation.json"
# What is compared with the defaults on all prompts: guidance against none, dev's usual steps, schnell's fewest.
CONTRASTS: Mapping[str, Mapping[str, float]] = {
    "tiny-sd3": {"guidance_scale": 1.0},
    "tiny-flux-dev": {"num_inference_steps": 28},
    "tiny-flux-schnell": {"num_inference_steps": 1},
}
LEAST_OF_RENDERS = 0.99  # joint, of the right scenes
MOST_OF_WRONG = 0.02  # joint, of others


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m workers.tiny.evaluate", description=__doc__)
    parser.add_argument("--models", type=Path, default=MODELS_DIR, help="folder of the models")
    parser.add_argument("--only", choices=NAMES, help="evaluate this model alone")
    parser.add_argument("--prompts", type=int, default=500, help="held-out prompts with one figure")
    parser.add_argument("--pairs", type=int, default=200, help="held-out prompts with two figures")
    parser.add_argument("--grid", type=int, default=50, help="prompts for each steps x guidance, and each size")
    parser.add_argument("--out", type=Path, default=Path("build/tiny-evaluation"), help="folder for results")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    quiet()
    names = [arguments.only] if arguments.only else list(NAMES)
    results = _load(arguments.out / RESULTS)
    results["prompts"] = {"one": arguments.prompts, "two": arguments.pairs, "grid": arguments.grid}

    results["measure"] = {
        "one": measure_the_measure(arguments.prompts, figures=1),
        "two": measure_the_measure(arguments.pairs, figures=2),
    }
    print(f"\nThe measure itself, in percent\n\n{tables.measure_table(results['measure'])}\n")
    for measured in results["measure"].values():
        if measured["renders"]["joint"] < LEAST_OF_RENDERS or measured["wrong"]["joint"] > MOST_OF_WRONG:
            print("The measure itself is wrong: it must pass renders of the prompt, and no others.")
            return 1
    vae = AutoencoderKL.from_pretrained(arguments.models / names[0] / "vae")
    results["vae"] = measure_vae(vae, 200)
    print(f"The VAE: {results['vae']['psnr_db']:.1f} dB, joint {results['vae']['adherence']['joint']:.1%}\n")

    artist = Artist(arguments.models, names, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    for name in names:
        results.setdefault("models", {})[name] = _evaluate(artist, name, arguments)
        _save(arguments.out / RESULTS, results)
    print(f"\nAdherence to held-out prompts, in percent\n\n{tables.default_table(results['models'])}")
    for name in names:
        print(f"\n{name}, by steps and guidance\n\n{tables.full_grid_table(results['models'][name]['grid'])}")
        print(f"\n{name}, by size\n\n{tables.size_table(results['models'][name]['sizes'])}")
        print(f"\n{name}, many seeds: {results['models'][name]['diversity']}")
    if names == list(NAMES):
        exhibits.save(exhibits.steps_strip(artist), arguments.out / "steps.png")
        exhibits.save(exhibits.guidance_strip(artist), arguments.out / "guidance.png")
        exhibits.save(exhibits.prompt_grid(artist), arguments.out / "prompts.png")
    print(f"\nThe results are in {arguments.out / RESULTS}, the pictures beside it.")
    return 0


def quiet() -> None:
    """Long prompts are cut for CLIP on purpose here: no warning for each."""
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.getLogger("diffusers").setLevel(logging.ERROR)


def _evaluate(artist: Artist, name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    one, two = held_out_prompts(arguments.prompts, figures=1), held_out_prompts(arguments.pairs, figures=2)
    singles = draw_and_score(artist, name, one, f"{name}, one figure")
    pairs = draw_and_score(artist, name, two, f"{name}, two figures")
    contrast = draw_and_score(artist, name, one, f"{name}, {CONTRASTS[name]}", **CONTRASTS[name])
    exhibits.save(exhibits.failures([*singles, *pairs]), arguments.out / f"{name}-failures.png")
    return {
        "one": means(result.score for result in singles),
        "two": means(result.score for result in pairs),
        "contrast": {**CONTRASTS[name], **means(result.score for result in contrast)},
        "seconds": seconds_alone(artist, name),
        "length": by_length(artist, name, singles),
        "grid": by_steps_and_guidance(artist, name, one[: arguments.grid]),
        "sizes": by_size(artist, name, one[: arguments.grid]),
        "diversity": diversity(artist, name),
    }


def _load(path: Path) -> dict[str, Any]:
    """Results of other models, evaluated before."""
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return results


def _save(path: Path, results: dict[str, Any]) -> None:
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
