"""The evaluation's results as Markdown tables, for the terminal and the model cards."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from workers.tiny.adherence import ATTRIBUTES

COLUMNS = (*ATTRIBUTES, "joint")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Align the columns, the first to the left, the others to the right."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = [
        "| "
        + " | ".join(_aligned(cell, width, i) for i, (cell, width) in enumerate(zip(line, widths, strict=True)))
        + " |"
        for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 1) + ("-" if i == 0 else ":") for i, width in enumerate(widths)) + "|"
    return "\n".join([text[0], rule, *text[1:]])


def measure_table(measure: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    return table(
        ("picture", "figures", *COLUMNS),
        (
            (name, figures, *_shares(shares))
            for figures, results in measure.items()
            for name, shares in (
                ("render of the prompt", results["renders"]),
                ("render of another", results["wrong"]),
                ("render of another number", results["miscounted"]),
                ("chance", results["chance"]),
            )
        ),
    )


def default_table(models: Mapping[str, Mapping[str, Any]]) -> str:
    return table(
        ("model at its defaults", "figures", *COLUMNS),
        (
            (name, label, *_shares(shares))
            for name, results in models.items()
            for label, shares in (
                ("one", results["one"]),
                ("two", results["two"]),
                ("one, no place", results["unplaced"]["one"]),
                ("two, no place", results["unplaced"]["two"]),
            )
        ),
    )


def grid_table(rows: Sequence[Mapping[str, float]]) -> str:
    """Joint adherence: steps down, guidance across."""
    scales = list(dict.fromkeys(row["guidance"] for row in rows))
    if len(scales) == 1:
        return table(("steps", *COLUMNS), ((f"{row['steps']:g}", *_shares(row)) for row in rows))
    steps = dict.fromkeys(row["steps"] for row in rows)
    joint = {(row["steps"], row["guidance"]): row["joint"] for row in rows}
    return table(
        ("joint by steps \\ guidance", *(f"{scale:g}" for scale in scales)),
        ((f"{n:g}", *(_percent(joint[n, scale]) for scale in scales)) for n in steps),
    )


def full_grid_table(rows: Sequence[Mapping[str, float]]) -> str:
    """Every attribute, a row for each number of steps and guidance scale."""
    return table(
        ("steps", "guidance", *COLUMNS),
        ((f"{row['steps']:g}", f"{row['guidance']:g}", *_shares(row)) for row in rows),
    )


def size_table(sizes: Mapping[str, Mapping[str, float]]) -> str:
    return table(("pixels", *COLUMNS), ((size, *_shares(shares)) for size, shares in sizes.items()))


def margin(count: int) -> float:
    """How far in percent a share of so many pictures may be off, at most, 19 times of 20."""
    return 196 * math.sqrt(0.25 / count)


def _shares(shares: Mapping[str, float]) -> list[str]:
    return [_percent(shares[name]) if name in shares else "" for name in COLUMNS]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _aligned(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column == 0 else cell.rjust(width)
