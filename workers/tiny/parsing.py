"""Prompts of the tiny world back into facts: what a picture of this prompt must show.

Understands what `captions` writes and what people write like it; words about other things are passed over.
"""

import re

from workers.tiny.captions import AMERICAN, RELATION_WORDS, SIZE_WORDS
from workers.tiny.facts import Facts, FigureFacts
from workers.tiny.scenes import COLOURS, COLUMNS, ROWS, SHAPES, Background

_SIZES = {word: size for size, words in SIZE_WORDS.items() for word in words}
_RELATIONS = {word: relation for relation, words in RELATION_WORDS.items() for word in words}


def _any(words: object) -> str:
    return "|".join(sorted(map(str, words), key=len, reverse=True))  # type: ignore[call-overload]


_COLOUR, _SHAPE = _any(COLOURS), _any(SHAPES)
_FIGURE = re.compile(rf"\b(?:(?P<size>{_any(_SIZES)}) )?(?P<colour>{_COLOUR}) (?P<shape>{_SHAPE})\b")
_RELATION = re.compile(rf"(?P<words>{_any(_RELATIONS)}) (?:the |an? )?")
_BETWEEN_SHAPES = re.compile(rf"(?:{_SHAPE}) (?:is )?(?P<words>{_any(_RELATIONS)}) (?:the )?(?:{_SHAPE})\b")
_PLACE = re.compile(r"\b(?:(?P<row>top|bottom) (?P<column>left|right)|(?P<only>top|bottom|left|right|centre|middle))\b")
_BACKGROUNDS = (
    ("gradient", re.compile(rf"(?:gradient background from )?({_COLOUR}) to ({_COLOUR})(?: gradient background)?")),
    ("striped", re.compile(rf"(?:striped )?({_COLOUR}) and ({_COLOUR}) (?:striped )?background")),
    ("plain", re.compile(rf"(?:plain )?({_COLOUR})( )background|background is (?:plain )?({_COLOUR})\b(?! \w)")),
)


def parse_prompt(prompt: str) -> Facts:
    """Read the facts off a prompt; what is not understood is not stated."""
    text = prompt.lower()
    for british, american in AMERICAN.items():
        text = text.replace(american, british)
    background, text = _background(text)
    found = list(_FIGURE.finditer(text))
    figures = []
    for i, match in enumerate(found):
        end = found[i + 1].start() if i + 1 < len(found) else len(text)
        # Up to the next figure and no further than the sentence; "left of" is no place.
        after = re.split(r"[.]", _RELATION.sub(" ", text[match.end() : end]))[0]
        size, (row, column) = match["size"], _place(after)
        figures.append(FigureFacts(match["shape"], match["colour"], size and _SIZES[size], row, column))
    return Facts(tuple(figures), background, _relation(text, found) if len(figures) == 2 else None)


def _background(text: str) -> tuple[Background | None, str]:
    """The background, and the text without it."""
    for fill, pattern in _BACKGROUNDS:
        match = pattern.search(text)
        if match:
            first, second, *rest = match.groups()
            rest = [colour for colour in rest if colour]
            plain = fill == "plain"
            background = Background(fill, first or rest[0], None if plain else second)
            return background, f"{text[: match.start()]} {text[match.end() :]}"
    return None, text


def _place(text: str) -> tuple[int | None, int | None]:
    match = _PLACE.search(text)
    if match is None:
        return None, None
    row, column = match["row"] or match["only"], match["column"] or match["only"]
    return ROWS.index(row) if row in ROWS else 1, COLUMNS.index(column) if column in COLUMNS else 1


def _relation(text: str, figures: list[re.Match[str]]) -> str | None:
    between = _BETWEEN_SHAPES.search(text)
    if between:
        return _RELATIONS[between["words"]]
    words = _RELATION.search(text[figures[0].end() : figures[1].start()])
    return _RELATIONS[words["words"]] if words else None
