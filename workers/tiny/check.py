"""python -m workers.tiny.check picture.png "its prompt": does the picture show what the prompt says?

Needs no model: the picture's pixels are read. With --json, many at once: a list of [file, prompt] on standard input, a
list of what each picture fails to show on standard output.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from workers.tiny.adherence import Score, missing, score
from workers.tiny.parsing import parse_prompt
from workers.tiny.reading import Reading, read_scene
from workers.tiny.scenes import COLUMNS, ROWS


def check(path: Path, prompt: str) -> tuple[Score, Reading]:
    """Compare a picture with its prompt. Raises OSError for a file that is no picture."""
    with Image.open(path) as image:
        reading = read_scene(np.asarray(image.convert("RGB")))
    return score(parse_prompt(prompt), reading), reading


def in_words(reading: Reading) -> str:
    background = reading.background
    colours = background.colour if background.second is None else f"{background.colour} and {background.second}"
    figures = [f"{f.size} {f.colour} {f.shape}, {ROWS[f.row]} {COLUMNS[f.column]}" for f in reading.figures]
    return "; ".join([*figures, f"{background.fill} {colours} background"])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m workers.tiny.check", description=__doc__)
    parser.add_argument("picture", type=Path, nargs="?", help="file of the picture")
    parser.add_argument("prompt", nargs="?", help="what it was asked to show")
    parser.add_argument("--json", action="store_true", help="read [file, prompt] pairs from standard input")
    given = parser.parse_args(arguments)
    if given.json:
        json.dump([missing(check(Path(path), prompt)[0]) for path, prompt in json.load(sys.stdin)], sys.stdout)
        return 0
    if given.picture is None or given.prompt is None:
        parser.error("give a picture and its prompt, or --json")
    try:
        result, reading = check(given.picture, given.prompt)
    except OSError as error:
        parser.error(f"cannot read {given.picture}: {error}")
    print(f"seen: {in_words(reading)}")
    if not parse_prompt(given.prompt).figures:
        print("The prompt states nothing that can be checked; try one like `a small red ring on the left`.")
        return 2
    for name, holds in result.items():
        print(f"{name:<10}  {'as asked' if holds else 'not as asked'}")
    return 0 if result["joint"] else 1


if __name__ == "__main__":
    sys.exit(main())
