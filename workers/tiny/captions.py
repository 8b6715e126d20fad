"""Facts in words, from terse to long; a caption says all the facts it is given and nothing else about the scene."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from workers.tiny.facts import Facts, FigureFacts, facts_of
from workers.tiny.scenes import COLUMNS, ROWS, Background, Scene, draw_scene

SIZE_WORDS = {
    "small": ("small", "small", "little", "tiny"),
    "medium": ("medium", "medium-sized"),
    "large": ("large", "large", "big", "huge"),
}
RELATION_WORDS = {
    "to the left of": ("to the left of", "left of"),
    "to the right of": ("to the right of", "right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
AMERICAN = {"colour": "color", "centre": "center"}
OPENINGS = ("a picture of", "an image of", "a drawing of", "a photo of", "a painting of", "draw", "show me", "there is")
# Words about everything but the scene: what long prompts are full of.
REMARKS = (
    "high quality, sharp focus, best quality, highly detailed",
    "a masterpiece of minimal design with clean edges and flat colours",
    "this is a simple drawing that a child could have made with paper and scissors",
    "the light is soft and even, and nothing casts a shadow",
    "it should look like a poster from an old school book",
    "please keep the lines crisp and the colours pure, without any texture or noise",
    "no text, no watermark, no frame, no signature",
    "the style is calm and friendly, as in a picture book for young readers",
    "everything is drawn with great care and a steady hand",
    "rendered as vector art for an exhibition of modern geometry",
    "the artist wanted the viewer to rest their eyes for a moment",
    "trending on every gallery, award winning, professional, 4k",
    "I have thought about this picture for a long time and I know exactly what I want to see in it",
    "there should be nothing else in the picture",
)
LONG_WORDS = 70  # of remarks before the facts, so that they lie beyond CLIP's 77 tokens


def write_captions(seed: int, count: int) -> Iterator[str]:
    """Yield `count` captions of random scenes; the same seed gives the same captions."""
    rng = random.Random(seed)
    for _ in range(count):
        yield describe(rng)[0]


def describe(rng: random.Random) -> tuple[str, Facts]:
    """Write a caption of a random scene that is not held out, and say what it states."""
    facts = some_facts(draw_scene(rng), rng)
    return write_caption(facts, rng), facts


def some_facts(scene: Scene, rng: random.Random) -> Facts:
    """State a scene in part: of two figures at least their relation or their places."""
    facts = facts_of(scene, sizes=rng.random() < 0.8, places=rng.random() < 0.7, background=rng.random() < 0.75)
    placed = facts.figures[0].row is not None
    return replace(facts, relation=None) if placed and rng.random() < 0.4 else facts


def write_caption(facts: Facts, rng: random.Random, long_share: float = 0.25) -> str:
    """Put the facts into one of several phrasings, in a share of cases inside many words about other things."""
    caption = rng.choice((_tags, _sentence, _background_first, _full))(facts, rng)
    if rng.random() < long_share:
        caption = _at_length(caption, rng)
    if rng.random() < 0.3:
        for british, american in AMERICAN.items():
            caption = caption.replace(british, american)
    # T5 keeps case and CLIP folds it: the corpus needs both forms for either tokenizer to know capitals.
    return caption[0].upper() + caption[1:] if rng.random() < 0.3 else caption


def _tags(facts: Facts, rng: random.Random) -> str:
    """Write "small red circle, top left, blue background"."""
    if facts.relation is not None:
        first, second = (_noun(figure, rng) for figure in facts.figures)
        tags = [f"{first} {rng.choice(RELATION_WORDS[facts.relation])} {second}"]
        if facts.figures[0].row is not None:
            tags = [f"{_noun(figure, rng)} {_place(figure, rng)}" for figure in facts.figures] + [
                f"{facts.figures[0].shape} {rng.choice(RELATION_WORDS[facts.relation])} {facts.figures[1].shape}"
            ]
    else:
        tags = [tag for figure in facts.figures for tag in (_noun(figure, rng), _corner(figure)) if tag]
    if facts.background:
        tags.append(_background(facts.background, rng))
    return ", ".join(tags)


def _sentence(facts: Facts, rng: random.Random) -> str:
    """Write "a drawing of a small red circle in the top left on a blue background"."""
    opening = f"{rng.choice(OPENINGS)} " if rng.random() < 0.4 else ""
    background = f" on {_an(_background(facts.background, rng))}" if facts.background else ""
    return f"{opening}{_figures(facts, rng)}{background}"


def _background_first(facts: Facts, rng: random.Random) -> str:
    """Write "on a blue background, a small red circle in the top left"."""
    if facts.background is None:
        return _sentence(facts, rng)
    return f"on {_an(_background(facts.background, rng))}, {_figures(facts, rng)}"


def _full(facts: Facts, rng: random.Random) -> str:
    """Write a sentence for each fact: "A small red circle is in the top left. The background is plain blue."."""
    sentences = []
    for figure in facts.figures:
        place = _place(figure, rng)
        noun = _an(_noun(figure, rng))
        sentences.append(f"{noun} is {place}" if place else f"{rng.choice(OPENINGS)} {noun}")
    if facts.relation:
        first, second = facts.figures
        sentences.append(f"the {first.shape} is {rng.choice(RELATION_WORDS[facts.relation])} the {second.shape}")
    if facts.background:
        if facts.background.fill == "plain" and rng.random() < 0.5:
            sentences.append(f"the background is {rng.choice(('', 'plain '))}{facts.background.colour}")
        else:
            sentences.append(f"the picture has {_an(_background(facts.background, rng))}")
        if rng.random() < 0.5:
            sentences.insert(0, sentences.pop())
    return ". ".join(sentence[0].upper() + sentence[1:] for sentence in sentences) + "."


def _at_length(caption: str, rng: random.Random) -> str:
    """Add remarks: before the caption until CLIP sees none of it, or a few on either side."""
    remarks = rng.sample(REMARKS, len(REMARKS))
    wanted = LONG_WORDS if rng.random() < 0.5 else rng.randrange(10, 40)
    before: list[str] = []
    while len(" ".join(before).split()) < wanted:
        before.append(remarks.pop())
    if wanted < LONG_WORDS and rng.random() < 0.5:
        return _joined([caption, *before])
    return _joined([*before, caption])


def _joined(parts: Sequence[str]) -> str:
    return ". ".join(part.rstrip(".")[0].upper() + part.rstrip(".")[1:] for part in parts) + "."


def _figures(facts: Facts, rng: random.Random) -> str:
    described = []
    for figure in facts.figures:
        place = _place(figure, rng)
        described.append(_an(_noun(figure, rng)) + (f" {place}" if place else ""))
    if len(described) == 1:
        return described[0]
    return f" {rng.choice(RELATION_WORDS[facts.relation]) if facts.relation else 'and'} ".join(described)


def _noun(figure: FigureFacts, rng: random.Random) -> str:
    return " ".join(filter(None, (figure.size and rng.choice(SIZE_WORDS[figure.size]), figure.colour, figure.shape)))


def _place(figure: FigureFacts, rng: random.Random) -> str | None:
    if figure.row is None or figure.column is None:
        return None
    row, column = ROWS[figure.row], COLUMNS[figure.column]
    if (row, column) == ("middle", "centre"):
        return f"in the {rng.choice(('centre', 'middle'))}"
    if column == "centre":
        return f"at the {row}"
    if row == "middle":
        return f"on the {column}"
    return rng.choice((f"in the {row} {column}", f"at the {row} {column}", f"in the {row} {column} corner"))


def _corner(figure: FigureFacts) -> str | None:
    if figure.row is None or figure.column is None:
        return None
    row, column = ROWS[figure.row], COLUMNS[figure.column]
    if column == "centre":
        return "centre" if row == "middle" else row
    return column if row == "middle" else f"{row} {column}"


def _background(background: Background, rng: random.Random) -> str:
    first, second = background.colour, background.second
    match background.fill:
        case "plain":
            phrases = (f"plain {first} background", f"{first} background")
        case "gradient":
            phrases = (f"gradient background from {first} to {second}", f"{first} to {second} gradient background")
        case _:
            phrases = (f"striped {first} and {second} background", f"{first} and {second} striped background")
    return rng.choice(phrases)


def _an(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
