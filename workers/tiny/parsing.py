"""Prompts of the tiny world back into facts: what a picture of this prompt must show.

Understands what `captions` writes and what people write like it; words about other things are passed over.
"""

import re
from collections.abc import Iterable

from workers.tiny.captions import AMERICAN, RELATION_WORDS, SIZE_WORDS
from workers.tiny.facts import Facts, FigureFacts
from workers.tiny.scenes import COLOURS, COLUMNS, ROWS, SHAPES, Background


def _any(words: Iterable[str]) -> str:
    return f"(?:{'|'.join(sorted(words, key=len, reverse=True))})"


_SIZES = {word: size for size, words in SIZE_WORDS.items() for word in words}
_RELATIONS = {word: relation for relation, words in RELATION_WORDS.items() for word in words}
_OPPOSITE = {
    "to the left of": "to the right of",
    "to the right of": "to the left of",
    "above": "below",
    "below": "above",
}
_COLOUR, _SHAPE, _RELATED = _any(COLOURS), _any(SHAPES), _any(_RELATIONS)
_FIGURE = re.compile(
    rf"\b(?:(?P<article>an?) )?(?:(?P<size>{_any(_SIZES)}) )?(?:(?P<colour>{_COLOUR}) )?(?P<shape>{_SHAPE})(?![-\w])"
)
_RELATION = re.compile(rf"\b(?P<words>{_RELATED})\b")
_BETWEEN_SHAPES = re.compile(rf"\b(?P<first>{_SHAPE}) (?:is )?(?P<words>{_RELATED}) (?:the )?(?P<second>{_SHAPE})\b")
_ROW, _COLUMN = "top|middle|centre|bottom", "left|centre|middle|right"
_PLACE = re.compile(
    rf"\b(?:(?P<row>{_ROW})[ -](?P<column>{_COLUMN})|(?P<column_first>left|right)[ -](?P<row_second>{_ROW})"
    rf"|(?P<only>top|bottom|left|right|centre|middle))\b"
)
_GRADIENT = re.compile(
    rf"\bgradient background from ({_COLOUR}) to ({_COLOUR})\b|\b({_COLOUR}) to ({_COLOUR}) gradient background\b"
)
_STRIPED = re.compile(
    rf"\bstriped ({_COLOUR}) and ({_COLOUR}) background\b|\b({_COLOUR}) and ({_COLOUR}) striped background\b"
)
_PLAIN = re.compile(
    rf"(?<!and )(?<!to )\b({_COLOUR}) background\b|\bbackground is (?:plain )?({_COLOUR})\b(?! (?:and|to)\b)"
)


_UNCLEAR = re.compile(rf"\b(?:no|not|without|two|three|four|several|many|{_SHAPE}e?s)\b")


def unclear(prompt: str) -> str | None:
    """A word of a prompt that changes what it asks for, and that parse_prompt does not understand."""
    match = _UNCLEAR.search(prompt.lower())
    return match[0] if match else None


def parse_prompt(prompt: str) -> Facts:
    """Read the facts off a prompt; what is not understood is not stated."""
    text = " ".join(prompt.lower().split())
    for british, american in AMERICAN.items():
        text = text.replace(american, british)
    for ours, theirs in (("top", "upper"), ("bottom", "lower")):
        text = re.sub(rf"\b{theirs}\b", ours, text)
    background, text = _background(text)
    found: list[re.Match[str]] = []
    for match in _FIGURE.finditer(text):
        # "the circle" without a colour speaks of a circle that was mentioned before.
        described = match["colour"] or match["article"] or match["size"]
        if described or match["shape"] not in {earlier["shape"] for earlier in found}:
            found.append(match)
    figures = []
    # "On the left a ring, on the right a star": where the first place comes first, they all do.
    leading = bool(found) and _place(text[: found[0].start()].split(".")[-1]) != (None, None)
    for i, match in enumerate(found):
        start = found[i - 1].end() if i else 0
        end = found[i + 1].start() if i + 1 < len(found) else len(text)
        # Between two figures, and in the same sentence; "left of" is no place.
        if leading:
            row, column = _place(_RELATION.sub(" ", text[start : match.start()]).split(".")[-1])
        else:
            row, column = _place(_RELATION.sub(" ", text[match.end() : end]).split(".")[0])
        figures.append(
            FigureFacts(match["shape"], match["colour"], match["size"] and _SIZES[match["size"]], row, column)
        )
    return Facts(tuple(figures), background, _relation(text, found) if len(figures) == 2 else None)


def _background(text: str) -> tuple[Background | None, str]:
    """The background, and the text without it."""
    for fill, pattern in (("gradient", _GRADIENT), ("striped", _STRIPED), ("plain", _PLAIN)):
        match = pattern.search(text)
        if match:
            colour, *second = [group for group in match.groups() if group]
            background = Background(fill, colour, second[0] if second else None)
            return background, f"{text[: match.start()]} {text[match.end() :]}"
    return None, text


def _place(text: str) -> tuple[int | None, int | None]:
    match = _PLACE.search(text)
    if match is None:
        return None, None
    row = match["row"] or match["row_second"] or match["only"]
    column = match["column"] or match["column_first"] or match["only"]
    return ROWS.index(row) if row in ROWS else 1, COLUMNS.index(column) if column in COLUMNS else 1


def _relation(text: str, figures: list[re.Match[str]]) -> str | None:
    """Of the first figure to the second, even where the prompt names them the other way round."""
    between = _BETWEEN_SHAPES.search(text)
    if between is None:
        words = _RELATION.search(text[figures[0].end() : figures[1].start()])
        return _RELATIONS[words["words"]] if words else None
    relation = _RELATIONS[between["words"]]
    turned = between["first"] == figures[1]["shape"] != figures[0]["shape"]
    return _OPPOSITE[relation] if turned else relation
