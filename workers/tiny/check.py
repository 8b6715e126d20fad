"""python -m workers.tiny.check picture.png "its prompt": does the picture show what the prompt says?

Needs no model: the picture's pixels are read. With --json, many at once: a list of [file, prompt] on standard input; on
standard output, for each, a list of what the picture fails to show, or null for a prompt that states nothing.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from workers.tiny.adherence import Score, missing, score
from workers.tiny.facts import Facts, FigureFacts
from workers.tiny.parsing import parse_prompt, unclear
from workers.tiny.reading import Reading, read_scene
from workers.tiny.scenes import COLUMNS, ROWS, Background

LEAST_SIDE, MOST_PIXELS = 16, 1024 * 1024


def check(path: Path, facts: Facts) -> tuple[Score, Reading]:
    """Compare a picture with what a prompt states. Raises OSError for a file that is no picture of a fitting size."""
    try:
        with Image.open(path) as image:
            if min(image.size) < LEAST_SIDE or image.width * image.height > MOST_PIXELS:
                sizes = f"{LEAST_SIDE} pixels a side to {MOST_PIXELS} altogether"
                raise OSError(f"it is {image.width}x{image.height}, and pictures of {sizes} can be read")
            reading = read_scene(np.asarray(image.convert("RGB")))
    except (ValueError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow's, for damaged files
        raise OSError(str(error)) from error
    return score(facts, reading), reading


def in_words(reading: Reading) -> str:
    figures = [f"{f.size} {f.colour} {f.shape}, {ROWS[f.row]} {COLUMNS[f.column]}" for f in reading.figures]
    return "; ".join([*figures, _background_in_words(reading.background)])


def asked_in_words(facts: Facts) -> str:
    """What was taken from a prompt: words that were not understood are not in it."""
    parts = [_figure_in_words(figure) for figure in facts.figures]
    if facts.relation is not None:
        parts.append(f"the {facts.figures[0].shape} {facts.relation} the {facts.figures[1].shape}")
    if facts.background is not None:
        parts.append(_background_in_words(facts.background))
    return "; ".join(parts)


def _figure_in_words(figure: FigureFacts) -> str:
    what = " ".join(filter(None, (figure.size, figure.colour, figure.shape)))
    return (
        what if figure.row is None or figure.column is None else f"{what}, {ROWS[figure.row]} {COLUMNS[figure.column]}"
    )


def _background_in_words(background: Background) -> str:
    colours = background.colour if background.second is None else f"{background.colour} and {background.second}"
    return f"{background.fill} {colours} background"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m workers.tiny.check", description=__doc__)
    parser.add_argument("picture", type=Path, nargs="?", help="file of the picture")
    parser.add_argument("prompt", nargs="?", help="what it was asked to show")
    parser.add_argument("--json", action="store_true", help="read [file, prompt] pairs from standard input")
    given = parser.parse_args(arguments)
    if given.json:
        try:
            json.dump([_not_shown(Path(path), prompt) for path, prompt in _pairs(sys.stdin.read())], sys.stdout)
        except (OSError, ValueError) as error:
            parser.error(str(error))
        return 0
    if given.picture is None or given.prompt is None:
        parser.error("give a picture and its prompt, or --json")
    facts = parse_prompt(given.prompt)
    try:
        result, reading = check(given.picture, facts)
    except OSError as error:
        parser.error(f"cannot read {given.picture}: {error}")
    print(f"seen:  {in_words(reading)}")
    if (word := unclear(given.prompt)) is not None:
        print(f"The prompt says {word!r}, which is beyond this check; try one like `a small red ring on the left`.")
        return 2
    if not result.keys() - {"joint"}:
        print("The prompt states nothing that can be checked; try one like `a small red ring on the left`.")
        return 2
    print(f"asked: {asked_in_words(facts)}")
    for name, holds in result.items():
        print(f"{name:<10}  {'as asked' if holds else 'not as asked'}")
    return 0 if result["joint"] else 1


def _pairs(text: str) -> list[tuple[str, str]]:
    """Raises ValueError for anything but a JSON list of pairs of strings."""
    pairs = json.loads(text)
    if not isinstance(pairs, list):
        raise ValueError("standard input is not a list of [file, prompt] pairs")
    for pair in pairs:
        if not isinstance(pair, list) or [type(part) for part in pair] != [str, str]:
            raise ValueError(f"{json.dumps(pair)[:80]} is not a [file, prompt] pair")
    return [(path, prompt) for path, prompt in pairs]


def _not_shown(path: Path, prompt: str) -> list[str] | None:
    """None where the prompt states nothing. Raises OSError with the file's name."""
    try:
        result, _ = check(path, parse_prompt(prompt))
    except OSError as error:
        raise OSError(f"cannot read {path}: {error}") from error
    return missing(result) if result.keys() - {"joint"} else None


if __name__ == "__main__":
    sys.exit(main())
