"""What the tiny models are measured by: how often a picture shows what its held-out prompt says.

Every result is plain data, ready for JSON; shares are from 0 to 1.
"""

import itertools
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from app.catalog.catalog import Guidance
from workers.engine.request import ImageSpec
from workers.tiny.adherence import Score, means, score
from workers.tiny.drawing import Artist
from workers.tiny.prompts import Prompt, held_out_prompts
from workers.tiny.reading import Reading, Sighting, read_scene
from workers.tiny.render import Picture, render
from workers.tiny.scenes import CENTRES, Scene
from workers.tiny.tokenizers import CLIP_LENGTH
from workers.tiny.training.vae import to_tensor

STEPS = (1, 2, 4, 8, 20, 28)
GUIDANCE = (1.0, 2.0, 3.5, 5.0, 7.5, 15.0)
SIZES = ((64, 64), (96, 96), (128, 128), (192, 128), (128, 192), (192, 192), (256, 256))
SEEDS = 16  # of one prompt, for diversity
OPEN_PROMPTS = ("a red circle", "a blue star", "a large yellow heart", "a ring on a striped background")
CHANCE_PAIRS = 20_000
LEAST_OF_RENDERS = 0.99  # joint
FROM_CHANCE = 0.12  # that an attribute of other renders may lie, some hundred prompts being few
MOST_MISCOUNTED = 0.01

Shares = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Result:
    """One picture and what became of its prompt."""

    prompt: Prompt
    spec: ImageSpec
    picture: Picture
    reading: Reading
    score: Score


def measure_the_measure(count: int, figures: int) -> dict[str, Shares]:
    """Score renders of the right scenes, of others, and of others with one figure more or less, beside chance."""
    prompts, others = held_out_prompts(count, figures), held_out_prompts(count, 3 - figures)
    rng = random.Random(0)
    readings = [read_scene(render(prompt.scene, 128, 128, rng)) for prompt in prompts]
    miscounted = [read_scene(render(other.scene, 128, 128, rng)) for other in others]
    pairs = [rng.sample(prompts, 2) for _ in range(CHANCE_PAIRS)]
    return {
        "renders": _mean_scores(prompts, readings),
        "wrong": _mean_scores(prompts, readings[1:] + readings[:1]),
        "miscounted": _mean_scores(prompts, miscounted),
        "chance": means(score(one.facts, perfect_reading(other.scene)) for one, other in pairs),
    }


def faults(measure: Mapping[str, Shares]) -> list[str]:
    """What is wrong with the measure itself: it must pass renders of the prompt, and others as often as chance."""
    found = []
    if measure["renders"]["joint"] < LEAST_OF_RENDERS:
        found.append(f"renders of the prompt pass in {measure['renders']['joint']:.1%}, not {LEAST_OF_RENDERS:.0%}")
    for name, chance in measure["chance"].items():
        if name != "count" and abs(measure["wrong"][name] - chance) > FROM_CHANCE:
            found.append(f"{name} holds in {measure['wrong'][name]:.1%} of other renders, by chance in {chance:.1%}")
    if measure["miscounted"]["count"] > MOST_MISCOUNTED:
        found.append(f"a wrong count passes in {measure['miscounted']['count']:.1%}")
    return found


def _mean_scores(prompts: Sequence[Prompt], readings: Sequence[Reading]) -> Shares:
    return means(score(prompt.facts, reading) for prompt, reading in zip(prompts, readings, strict=True))


def perfect_reading(scene: Scene) -> Reading:
    """What the evaluator would read off a perfect picture."""
    figures = (
        Sighting(f.shape, f.colour, f.size, f.row, f.column, CENTRES[f.column], CENTRES[f.row], 1.0)
        for f in scene.figures
    )
    return Reading(scene.background, tuple(figures))


def measure_vae(vae: AutoencoderKL, count: int) -> dict[str, Any]:
    """Peak signal-to-noise ratio of reconstructed renders, in dB, and how well they still show their scenes."""
    prompts = held_out_prompts(count, figures=2)
    rng = random.Random(0)
    ratios, scores = [], []
    for prompt in prompts:
        picture = render(prompt.scene, 128, 128, rng)
        with torch.no_grad():
            decoded = vae.decode(vae.encode(to_tensor([picture])).latent_dist.mean).sample[0]
        again = ((decoded.permute(1, 2, 0).numpy() + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
        error = np.square(again.astype(np.float64) - picture).mean()
        ratios.append(10 * math.log10(255**2 / error))
        scores.append(score(prompt.facts, read_scene(again)))
    return {"psnr_db": sum(ratios) / len(ratios), "worst_psnr_db": min(ratios), "adherence": means(scores)}


def draw_and_score(
    artist: Artist, model: str, prompts: Sequence[Prompt], title: str | None = None, **changes: object
) -> list[Result]:
    """Draw each prompt once, prompt i with seed i."""
    specs = [artist.spec(model, prompt.text, seed, **changes) for seed, prompt in enumerate(prompts)]
    results = []
    for prompt, spec, picture in zip(prompts, specs, artist.draw(specs, title), strict=True):
        reading = read_scene(picture)
        results.append(Result(prompt, spec, picture, reading, score(prompt.facts, reading)))
    return results


def seconds_alone(artist: Artist, model: str) -> float:
    """The least of three times that one picture at the model's defaults takes on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times = []
    for seed in range(3):
        started = time.perf_counter()
        artist.draw([artist.spec(model, OPEN_PROMPTS[0], seed)])
        times.append(time.perf_counter() - started)
    torch.set_num_threads(threads)
    return min(times)


def by_steps_and_guidance(artist: Artist, model: str, prompts: Sequence[Prompt]) -> list[dict[str, object]]:
    """One row for each number of steps and guidance scale; a model without guidance has rows by steps alone."""
    guided = artist.cards[model].guidance is not Guidance.NONE
    rows: list[dict[str, object]] = []
    for steps in STEPS:
        for guidance in GUIDANCE if guided else (0.0,):
            title = f"{model}, {steps} steps" + (f", guidance {guidance:g}" if guided else "")
            changes = {"num_inference_steps": steps, "guidance_scale": guidance}
            results = draw_and_score(artist, model, prompts, title, **changes)
            rows.append({"steps": steps, "guidance": guidance, **means(result.score for result in results)})
    return rows


def by_size(artist: Artist, model: str, prompts: Sequence[Prompt]) -> dict[str, Shares]:
    return {
        f"{width}x{height}": means(
            result.score
            for result in draw_and_score(
                artist, model, prompts, f"{model}, {width}x{height}", width=width, height=height
            )
        )
        for width, height in SIZES
    }


def by_length(artist: Artist, model: str, results: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """Apart: prompts that CLIP reads whole, and longer ones, whose end only T5 reads; `pictures`: how many."""
    long = [len(artist.clip_tokens(model, result.prompt.text)) > CLIP_LENGTH for result in results]
    parts = {
        name: [result.score for result, is_long in zip(results, long, strict=True) if is_long == wanted]
        for name, wanted in (("within", False), ("beyond", True))
    }
    return {name: {"pictures": len(scores), **means(scores)} for name, scores in parts.items() if scores}


def diversity(artist: Artist, model: str) -> dict[str, Any]:
    """Prompts that leave much open, with many seeds: does the same seed repeat, and what do others choose?"""
    same, differences, places, backgrounds = True, [], [], []
    for prompt in OPEN_PROMPTS:
        pictures = artist.draw([artist.spec(model, prompt, seed) for seed in range(SEEDS)])
        alone = artist.draw([artist.spec(model, prompt, 0)])[0]
        # In company another kernel may round a last bit differently.
        same = same and int(np.abs(alone.astype(int) - pictures[0]).max()) <= 1
        different = [np.abs(a.astype(int) - b).mean() for a, b in itertools.pairwise(pictures)]
        differences.append(float(np.mean(different)))
        readings = [read_scene(picture) for picture in pictures]
        places.append(len({(f.row, f.column) for reading in readings for f in reading.figures[:1]}))
        backgrounds.append(len({reading.background for reading in readings}))
    return {
        "same_seed_repeats": same,
        "mean_difference": float(np.mean(differences)),
        "places": float(np.mean(places)),
        "backgrounds": float(np.mean(backgrounds)),
        "seeds": SEEDS,
    }
