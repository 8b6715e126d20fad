"""The results as tables."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.gpu.cell import Cell
from tests.benchmarks.gpu.results import Results

_GB = 1e9


def line(cell: Cell, measured: dict[str, Any]) -> str:
    what = " ".join(str(value) for value in cell.identity.values() if value is not None)
    shown = ("ms", "launch_ms", "first_ms", "mfu", "images_per_s", "s_per_image", "warm_up_s", "error")
    figures = ", ".join(f"{name} {_number(measured[name])}" for name in shown if name in measured)
    return f"{cell.section}: {what}: {figures}"


def print_report(results: Results, console: Console) -> None:
    for model, mode in dict.fromkeys((row["model"], row["mode"]) for row in results.section("grid")):
        own = [row for row in results.section("grid") if (row["model"], row["mode"]) == (model, mode)]
        console.print(_grid_table(model, mode, own, results.machine.get("memory_bytes")))
    if results.section("stages"):
        console.print(_stages_table(results.section("stages")))
    if results.section("offline"):
        console.print(_offline_table(results.section("offline")))
    for failure in results.section("failures"):
        console.print("not measured:", " ".join(str(value) for value in failure.values() if value is not None))


def largest_rows(cells: Sequence[dict[str, Any]], memory_bytes: int | None) -> int | None:
    """Estimate how many rows of one size fit: each takes as much more memory as the largest measured ones did."""
    by_rows = sorted((row["rows"], row["peak_bytes"]) for row in cells if "peak_bytes" in row)
    if memory_bytes is None or len(by_rows) < 2:
        return None
    (low, low_bytes), (high, high_bytes) = by_rows[0], by_rows[-1]
    row_bytes = (high_bytes - low_bytes) / (high - low)
    return high + int((memory_bytes - high_bytes) // row_bytes) if row_bytes > 0 else None


def _grid_table(model: str, mode: str, cells: Sequence[dict[str, Any]], memory_bytes: int | None) -> Table:
    table = Table(title=f"{model}, {mode}: ms per step (utilisation of peak); rows that fit: estimated from memory")
    counts = sorted({row["rows"] for row in cells})
    for column in ("size", *(f"{count} row{'s' if count > 1 else ''}" for count in counts), "launch ms", "rows fit"):
        table.add_column(column, justify="right")
    for size in sorted({row["height"] for row in cells}):
        own = {row["rows"]: row for row in cells if row["height"] == size}
        shown = [f"{own[n]['ms']:.1f} ({own[n]['mfu']:.0%})" if n in own else "" for n in counts]
        launch_ms = min(row["launch_ms"] for row in own.values())
        fit = largest_rows(list(own.values()), memory_bytes)
        table.add_row(str(size), *shown, f"{launch_ms:.1f}", "" if fit is None else f"~{fit}")
    return table


def _stages_table(rows: Iterable[dict[str, Any]]) -> Table:
    table = Table(title="stages")
    for column in ("stage", "what", "rows", "ms", "launch ms", "first call ms"):
        table.add_column(column, justify="left" if column in ("stage", "what") else "right")
    for row in rows:
        details = [row.get("component"), row.get("length") and f"{row['length']} tokens", row.get("height")]
        table.add_row(
            row["stage"],
            " ".join(str(detail) for detail in details if detail),
            str(row.get("rows", "")),
            *(_number(row[name]) if name in row else "" for name in ("ms", "launch_ms", "first_ms")),
        )
    return table


def _offline_table(rows: Iterable[dict[str, Any]]) -> Table:
    table = Table(title="offline: end to end, after warming up")
    for column in ("mix", "runner", "mode", "images", "max rows", "images/s", "s/image", "warm-up s", "build s"):
        table.add_column(column, justify="left" if column in ("mix", "runner", "mode") else "right")
    for row in rows:
        figures = [_number(row[name]) for name in ("images_per_s", "s_per_image", "warm_up_s", "build_s")]
        table.add_row(row["mix"], row["runner"], row["mode"], str(row["images"]), str(row["max_rows"] or 1), *figures)
    return table


def _number(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
