"""python -m workers.tiny.card: write each model's README.md and loss curves beside its weights."""

import argparse
import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import safe_open

from workers.tiny import tables
from workers.tiny.build import MODELS_DIR
from workers.tiny.evaluate import RESULTS
from workers.tiny.pipelines import NAMES
from workers.tiny.scenes import COLOURS, HELD_OUT_IN, SHAPES, SIZES

CURVES = "curves.png"
REMARKS = "remarks.md"  # beside the checkpoints, if whoever trained has any

CARD = """\
---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
---

# {name}

A very small text-to-image model in the stock diffusers folder format: the classes, files and tensor layout of
{original}, with few and narrow layers. It draws one or two coloured shapes on a plain, gradient or striped
background, as the prompt says, in {seconds:.2f} s at its defaults on one CPU core. Darkroom uses it as its default
without a GPU or a download, and to test that every picture shows its own prompt.

- pipeline: `{pipeline}`; {parameters:,} parameters, stored in half precision
- {settings}
- sizes: trained from 64x64 to 256x256 pixels, square, 3:2 and 2:3, best at 128x128; multiples of 16
- prompts: English, up to 128 T5 tokens; shapes: {shapes}; colours: {colours}; sizes: {sizes}; nine places;
  plain, gradient (top to bottom) or striped (vertical) backgrounds; two shapes in relation (left of, right of, above,
  below)
- licence: Apache-2.0; made by Darkroom's own code, no third-party weights or data

## How it was made

{method}

Data: scenes drawn at random, rendered by `workers/tiny/render.py` and described by `workers/tiny/captions.py` in four
phrasings, some inside many words about other things, beyond the 77 tokens that CLIP reads. One combination in
{held_out_in} of shape, colour, size and place was held out of training; the evaluation asks for nothing else. Every
shape, colour and size was seen together in training, in most of the nine places: what is measured is a known thing at a
new place, not a new thing.

Retrain: `make tiny-models`. The stages, of which some ran side by side:

{stages}

{remarks}

![loss curves](curves.png)

## What it does and does not

Shares of pictures, in percent, that show what a held-out prompt states, read from their pixels by
`python -m workers.tiny.evaluate` ({one} prompts with one figure, {two} with two, {unplaced} of each kind that
leave open where the figures are, {grid} for each number of the lower tables, which may be off by {margin:.0f}). "joint"
is all of it at once, with nothing else in the picture.

{defaults}

{length}

By steps and guidance, one figure:

{grid_table}

By size, one figure:

{sizes_table}

Every attribute by steps and guidance is in `evaluation.json`, one folder up.

{diversity}

{vae}

The measure itself, in percent:

{measure}

The worst failures of that evaluation, and what each fails to show:

![worst failures](../{name}-failures.png)

{limits}
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """What one model's card says that the others' do not. `stages` are names of training curves."""

    original: str
    pipeline: str
    settings: str
    method: str
    stages: Sequence[str]


class Point(NamedTuple):
    """A line of a loss curve: mean loss since the one before, seconds of training so far."""

    step: int
    loss: float
    seconds: float
    hardware: str


TEXT_AND_VAE = (
    "The text encoders were trained first, to state the facts of a caption, and frozen; the VAE was trained on rendered"
    " pictures, its decoder for longer. Both are shared by the three models."
)
SHARED_STAGES = ("vae", "decoder", "text")
LIMITS = (
    "Say where each shape is to be: where a prompt leaves that open, shapes often come in several places at once. "
    "It knows no words but those of its world: anything else is ignored or misread. Counts beyond two, other relations,"
    " overlapping shapes, camera or style words and other languages are beyond it. Prompts are not filtered; it cannot"
    " draw people or things."
)
DIVERSITY = (
    "Of prompts that leave much open, such as `a red circle`, {seeds} seeds give pictures that differ by"
    " {mean_difference:.0f} of 255 on average, with {places:.1f} places and {backgrounds:.1f} backgrounds."
    " A seed repeats its picture, alone or in a batch: {same_seed_repeats}."
)
VAE = "The VAE alone gives renders back at {psnr_db:.1f} dB (the worst at {worst_psnr_db:.1f})."
TRICKS = (
    " Beside the velocities its middle learnt to tell what stands where, as REPA does with a vision model (arXiv"
    " 2410.06940); figures counted more than background; matrices were trained by Muon."
)
KINDS: Mapping[str, Kind] = {
    "tiny-sd3": Kind(
        original="Stable Diffusion 3",
        pipeline="StableDiffusion3Pipeline",
        settings="20 to 28 steps, classifier-free guidance about 2.5",
        method=f"{TEXT_AND_VAE} The transformer learnt rectified flow (arXiv 2403.03206) on latents and captions; one"
        f" prompt in ten was dropped, for classifier-free guidance.{TRICKS} In the end it learnt on with prompts that"
        " are longer than CLIP reads.",
        stages=(*SHARED_STAGES, "sd3", "sd3-long"),
    ),
    "tiny-flux-dev": Kind(
        original="FLUX.1-dev",
        pipeline="FluxPipeline",
        settings="20 to 28 steps, guidance about 3.5, given to the transformer",
        method=f"{TEXT_AND_VAE} A Flux transformer without guidance learnt rectified flow with dropped prompts.{TRICKS}"
        " Its tokens also learnt to tell their own places, which nothing but the rotation of queries and keys shows"
        " them. From it this model was distilled over guidance scales from 1 to 16, so that one forward does the work"
        " of two (Meng et al., arXiv 2210.03142); then it learnt on from the teacher and the data together.",
        stages=(*SHARED_STAGES, "flux", "flux-dev", "flux-dev-data"),
    ),
    "tiny-flux-schnell": Kind(
        original="FLUX.1-schnell",
        pipeline="FluxPipeline",
        settings="1 to 4 steps, no guidance",
        method=f"{TEXT_AND_VAE} tiny-flux-dev drew pictures from noise at guidance 3.5; this model learnt the straight"
        " line from each noise to its picture: reflow (Liu et al., arXiv 2209.03003; for text to image InstaFlow,"
        " arXiv 2309.06380).",
        stages=(*SHARED_STAGES, "flux", "flux-dev", "flux-dev-data", "flux-schnell"),
    ),
}


def model_card(name: str, parameters: int, results: Mapping[str, Any], run: Path, remarks: str) -> str:
    """Render the README.md of the model called `name` from its evaluation and its training run's curves."""
    kind, model = KINDS[name], results["models"][name]
    return CARD.format(
        name=name,
        original=kind.original,
        pipeline=kind.pipeline,
        parameters=parameters,
        settings=kind.settings,
        shapes=", ".join(SHAPES),
        colours=", ".join(COLOURS),
        sizes=", ".join(SIZES),
        method=kind.method,
        held_out_in=HELD_OUT_IN,
        remarks=remarks,
        stages=stage_table(kind.stages, run),
        **model["prompts"],
        margin=tables.margin(model["prompts"]["grid"]),
        vae=VAE.format(**results["vae"]),
        measure=tables.measure_table(results["measure"]),
        defaults=tables.default_table({name: model}),
        seconds=model["seconds"],
        diversity=DIVERSITY.format(**model["diversity"]),
        length=in_words(model),
        grid_table=tables.grid_table(model["grid"]),
        sizes_table=tables.size_table(model["sizes"]),
        limits=LIMITS,
    )


def in_words(model: Mapping[str, Any]) -> str:
    """The defaults against one other setting, and prompts that CLIP reads whole against longer ones."""
    (setting,) = set(model["contrast"]) & {"guidance_scale", "num_inference_steps"}
    joint, other = model["one"]["joint"], model["contrast"]["joint"]
    words = (
        f"With {setting} {model['contrast'][setting]:g} instead, {other:.1%} are right in everything, not {joint:.1%}."
    )
    if {"within", "beyond"} <= model["length"].keys():
        within, beyond = model["length"]["within"], model["length"]["beyond"]
        words += (
            f" Of the {within['pictures']} prompts that CLIP reads whole, {within['joint']:.1%} are right; of the"
            f" {beyond['pictures']} longer ones, whose end only T5 reads, {beyond['joint']:.1%}."
        )
    return words


def stage_table(stages: Sequence[str], run: Path) -> str:
    rows = []
    for stage in stages:
        last = read_curve(run / f"{stage}.csv")[-1]
        rows.append((stage, f"{last.step}", f"{last.seconds / 60:.0f}", f"{last.loss:.4f}", last.hardware))
    return tables.table(("stage", "steps", "minutes", "last loss", "hardware"), rows)


def read_curve(path: Path) -> list[Point]:
    with path.open(newline="") as file:
        return [
            Point(int(row["step"]), float(row["loss"]), float(row["seconds"]), row["hardware"])
            for row in csv.DictReader(file)
        ]


def plot_curves(stages: Sequence[str], run: Path, path: Path) -> None:
    import matplotlib.pyplot as plt  # here: only those who retrain the models have it

    figure, axes = plt.subplots(1, len(stages), figsize=(2.2 * len(stages), 2), layout="constrained")
    for stage, axis in zip(stages, axes, strict=True):
        curve = read_curve(run / f"{stage}.csv")
        axis.plot([point.step for point in curve], [point.loss for point in curve], linewidth=1)
        axis.set_title(stage, fontsize=8)
        axis.set_yscale("log")
        axis.tick_params(labelsize=6, which="both")
    figure.savefig(path, dpi=80)
    plt.close(figure)


def count_parameters(folder: Path) -> int:
    """Numbers in all weights of a diffusers folder."""
    total = 0
    for file in folder.rglob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            total += sum(weights.get_tensor(key).numel() for key in weights.keys())  # noqa: SIM118  # not a mapping
    return total


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workers.tiny.card", description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("build/tiny-models"), help="folder of the training run")
    parser.add_argument("--evaluation", type=Path, default=Path("build/tiny-evaluation"))
    parser.add_argument("--out", type=Path, default=MODELS_DIR, help="folder of the models")
    arguments = parser.parse_args()
    remarks = arguments.run / REMARKS
    said = remarks.read_text(encoding="utf-8").strip() if remarks.exists() else ""
    text = (arguments.evaluation / RESULTS).read_text(encoding="utf-8")
    results = json.loads(text)
    for name in NAMES:
        folder = arguments.out / name
        plot_curves(KINDS[name].stages, arguments.run, folder / CURVES)
        card = model_card(name, count_parameters(folder), results, arguments.run, said)
        (folder / "README.md").write_text(card, encoding="utf-8")
    (arguments.out / RESULTS).write_text(text, encoding="utf-8")
    for picture in arguments.evaluation.glob("*.png"):
        shutil.copy(picture, arguments.out)


if __name__ == "__main__":
    main()
