"""Scenes in words, from terse to long; every caption is true of its scene."""

import random
from collections.abc import Iterator

from workers.tiny.scenes import COLUMNS, ROWS, Background, Figure, Scene, draw_scene

SYNONYMS = {"tiny": ("tiny", "very small"), "large": ("large", "big"), "medium": ("medium", "medium-sized")}
AMERICAN = {"colour": "color", "centre": "center", "grey": "gray"}
OPENINGS = ("a picture of", "an image of", "a drawing of", "a photo of", "a painting of", "draw", "there is")
STYLES = ("flat colours", "simple shapes", "minimal", "clean edges", "high quality", "bright light", "no text")


def write_captions(seed: int, count: int) -> Iterator[str]:
    """Yield `count` captions of random scenes; the same seed gives the same captions."""
    rng = random.Random(seed)
    for _ in range(count):
        yield write_caption(draw_scene(rng), rng)


def write_caption(scene: Scene, rng: random.Random) -> str:
    """Describe the scene in one of five phrasings."""
    phrase = rng.choice((_terse, _tags, _placed, _related, _full))
    caption = phrase(scene, rng)
    if rng.random() < 0.3:
        for british, american in AMERICAN.items():
            caption = caption.replace(british, american)
    # T5 keeps case and CLIP folds it: the corpus needs both forms for either tokenizer to know capitals.
    return caption[0].upper() + caption[1:] if rng.random() < 0.3 else caption


def _terse(scene: Scene, rng: random.Random) -> str:
    return f"{scene.figures[0].colour} {scene.figures[0].shape}"


def _tags(scene: Scene, rng: random.Random) -> str:
    tags = [f"{figure.size} {figure.colour} {figure.shape}" for figure in scene.figures]
    return ", ".join([*tags, _background(scene.background), *rng.sample(STYLES, rng.randint(0, 2))])


def _placed(scene: Scene, rng: random.Random) -> str:
    placed = [f"{_named(figure, rng)} {_position(figure)}" for figure in scene.figures]
    return f"{rng.choice(OPENINGS)} {' and '.join(placed)}"


def _related(scene: Scene, rng: random.Random) -> str:
    first, *others = scene.figures
    if not others:
        return f"{_named(first, rng)} on {_background(scene.background, article=True)}"
    return f"{_named(first, rng)} {_relation(first, others[0])} {_named(others[0], rng)}"


def _full(scene: Scene, rng: random.Random) -> str:
    sentences = [f"{rng.choice(OPENINGS)} {_background(scene.background, article=True)}"]
    sentences += [f"{_named(figure, rng)} is {_position(figure)}" for figure in scene.figures]
    for first, second in zip(scene.figures, scene.figures[1:], strict=False):
        sentences.append(f"the {first.shape} is {_relation(first, second)} the {second.shape}")
    return ". ".join(sentence[0].upper() + sentence[1:] for sentence in sentences) + "."


def _named(figure: Figure, rng: random.Random) -> str:
    size = rng.choice(SYNONYMS.get(figure.size, (figure.size,)))
    words = [size, figure.colour, figure.shape] if rng.random() < 0.7 else [figure.colour, figure.shape]
    return f"{_article(words[0])} {' '.join(words)}"


def _position(figure: Figure) -> str:
    row, column = ROWS[figure.row], COLUMNS[figure.column]
    if (row, column) == ("middle", "centre"):
        return "in the centre"
    if column == "centre":
        return f"at the {row}"
    return f"on the {column}" if row == "middle" else f"in the {row} {column}"


def _relation(first: Figure, second: Figure) -> str:
    if first.column != second.column:
        return "to the left of" if first.column < second.column else "to the right of"
    return "above" if first.row < second.row else "below"


def _background(background: Background, article: bool = False) -> str:
    if background.second is None:
        words = f"plain {background.colour} background"
    else:
        words = f"{background.fill} {background.colour} and {background.second} background"
    return f"{_article(words)} {words}" if article else words


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"
