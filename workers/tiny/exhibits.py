"""Pictures for people: strips over steps and guidance, a grid of prompts, and the worst failures."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from app.catalog.catalog import Guidance
from workers.tiny.adherence import missing
from workers.tiny.drawing import Artist
from workers.tiny.evaluation import GUIDANCE, STEPS, Result
from workers.tiny.render import Picture

PAPER, INK = "#f6f4ef", "#22201c"
GAP, LINE = 8, 14
STRIP_PROMPT = "a small red ring on the left on a blue background"
STRIP_SEED = 1
GRID_PROMPTS = (
    "a small red ring on the left on a blue background",
    "a large yellow star in the centre on a purple background",
    "a green triangle on the left and a white circle on the right",
    "a large pink heart in the centre on a striped white and teal background",
    "a small black cross in the top right on an orange to yellow gradient background",
    "an orange square at the top and a teal diamond at the bottom on a black background",
)


def steps_strip(artist: Artist) -> Image.Image:
    """One prompt and seed; models down, steps across."""
    specs = [
        artist.spec(model, STRIP_PROMPT, STRIP_SEED, num_inference_steps=n) for model in artist.cards for n in STEPS
    ]
    labels = [f"{n} {'step' if n == 1 else 'steps'}" for n in STEPS]
    return sheet(artist.draw(specs), columns=labels, rows=list(artist.cards))


def guidance_strip(artist: Artist) -> Image.Image:
    """One prompt and seed; models that heed guidance down, guidance across."""
    models = [name for name, card in artist.cards.items() if card.guidance is not Guidance.NONE]
    specs = [artist.spec(model, STRIP_PROMPT, STRIP_SEED, guidance_scale=g) for model in models for g in GUIDANCE]
    return sheet(artist.draw(specs), columns=[f"guidance {g:g}" for g in GUIDANCE], rows=models)


def prompt_grid(artist: Artist) -> Image.Image:
    """Models down, prompts across, at the models' defaults."""
    specs = [artist.spec(model, prompt, 3) for model in artist.cards for prompt in GRID_PROMPTS]
    return sheet(artist.draw(specs), columns=list(GRID_PROMPTS), rows=list(artist.cards))


def failures(results: Sequence[Result], count: int = 12) -> Image.Image:
    """The pictures that miss most of their prompts, worst first."""
    missed = [result for result in results if not result.score["joint"]]
    missed.sort(key=lambda result: -len(missing(result.score)))
    columns = [f"not {', '.join(missing(r.score))}: {r.prompt.text[-110:]}" for r in missed[:count]]
    return sheet([result.picture for result in missed[:count]], columns=columns, rows=[""])


def sheet(pictures: Sequence[Picture], columns: Sequence[str], rows: Sequence[str]) -> Image.Image:
    """Lay pictures of one size out in rows, the columns' words above them, each row's name at its left."""
    if not pictures:
        return Image.new("RGB", (1, 1), PAPER)
    height, width, _ = pictures[0].shape
    font = ImageFont.load_default(11)
    margin = max((int(font.getlength(row)) for row in rows), default=0) + (2 * GAP if any(rows) else GAP)
    words = [textwrap.wrap(column, width // 6) for column in columns]
    head = GAP + LINE * max(map(len, words))
    canvas = Image.new("RGB", (margin + len(columns) * (width + GAP), head + len(rows) * (height + GAP)), PAPER)
    draw = ImageDraw.Draw(canvas)
    for j, lines in enumerate(words):
        for k, line in enumerate(lines):
            draw.text((margin + j * (width + GAP), GAP // 2 + k * LINE), line, INK, font)
    for i, row in enumerate(rows):
        draw.text((GAP, head + i * (height + GAP) + height // 2 - LINE // 2), row, INK, font)
    for index, picture in enumerate(pictures):
        i, j = divmod(index, len(columns))
        canvas.paste(Image.fromarray(picture), (margin + j * (width + GAP), head + i * (height + GAP)))
    return canvas


def save(image: Image.Image, path: Path) -> None:
    """Write a PNG of 256 colours, a third of the size and no worse to look at."""
    image.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
