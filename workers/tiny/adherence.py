"""How far a picture shows what its prompt states: attribute by attribute, and all of them jointly."""

import itertools
from collections.abc import Iterable, Mapping, Sequence

from workers.tiny.facts import Facts, FigureFacts
from workers.tiny.reading import Reading, Sighting
from workers.tiny.scenes import Background

ATTRIBUTES = ("count", "shape", "colour", "size", "position", "relation", "background")
MOST_FIGURES = 4  # that are told apart; the world has two at most
APART = 0.08  # of the picture: one figure is beside another when their centres are this far apart

Score = Mapping[str, bool]  # the stated attributes, and "joint"


def score(facts: Facts, reading: Reading) -> Score:
    """Compare; an attribute holds when it holds for every figure of which it is stated.

    Figures are paired with sightings so that most attributes hold; a figure that is not there has none of them.
    """
    results: dict[str, bool] = {}
    if facts.figures:
        results["count"] = len(reading.figures) == len(facts.figures) and reading.clean
        if len(facts.figures) > MOST_FIGURES:
            return {"count": False, "joint": False}
        seen: list[Sighting | None] = [*reading.figures[:MOST_FIGURES], *[None] * len(facts.figures)]
        pairings = itertools.permutations(seen, len(facts.figures))
        compared = [_compare(facts, pairing) for pairing in pairings]
        best = max(compared, key=_held)
        results |= best
    if facts.background:
        results["background"] = _same_background(facts.background, reading.background)
    return {**results, "joint": all(results.values())}


def missing(result: Score) -> list[str]:
    """The stated attributes that the picture does not show."""
    return [name for name, holds in result.items() if not holds and name != "joint"]


def means(scores: Iterable[Score]) -> dict[str, float]:
    """The share of pictures in which each attribute holds, of those for which it is stated."""
    listed = list(scores)
    shares = {}
    for name in (*ATTRIBUTES, "joint"):
        held = [result[name] for result in listed if name in result]
        if held:
            shares[name] = sum(held) / len(held)
    return shares


def _held(found: Mapping[str, bool]) -> int:
    return sum(found.values())


def _compare(facts: Facts, pairing: Sequence[Sighting | None]) -> dict[str, bool]:
    found: dict[str, bool] = {}
    for figure, seen in zip(facts.figures, pairing, strict=True):
        for name, holds in _compare_figure(figure, seen).items():
            found[name] = found.get(name, True) and holds
    if facts.relation is not None:
        # Between the shapes that are named: two other figures may well lie so, and mean nothing.
        (a, first), (b, second) = zip(facts.figures, pairing, strict=True)
        found["relation"] = (
            first is not None
            and second is not None
            and (first.shape, second.shape) == (a.shape, b.shape)
            and _related(facts.relation, first, second)
        )
    return found


def _compare_figure(figure: FigureFacts, seen: Sighting | None) -> dict[str, bool]:
    stated = {"shape": figure.shape, "colour": figure.colour, "size": figure.size}
    found = {
        name: seen is not None and getattr(seen, name) == value for name, value in stated.items() if value is not None
    }
    if figure.row is not None:
        found["position"] = seen is not None and (seen.row, seen.column) == (figure.row, figure.column)
    return found


def _related(relation: str, first: Sighting, second: Sighting) -> bool:
    distance = {
        "to the left of": second.x - first.x,
        "to the right of": first.x - second.x,
        "above": second.y - first.y,
        "below": first.y - second.y,
    }[relation]
    return bool(distance > APART)


def _same_background(stated: Background, seen: Background) -> bool:
    if stated.fill != seen.fill:
        return False
    if stated.fill == "striped":  # "red and blue stripes" does not say which come first
        return {stated.colour, stated.second} == {seen.colour, seen.second}
    return (stated.colour, stated.second) == (seen.colour, seen.second)
