"""Results as a table, as JSON and as a picture."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib.figure import Figure
from rich.table import Table

from tests.benchmarks.serve.contenders.roster import BASELINE, DARKROOM
from tests.benchmarks.serve.measure import Result
from tests.benchmarks.serve.slowdowns import LIMIT, WANTED


def table(mix: str, results: Mapping[str, Result]) -> Table:
    base = results[BASELINE].goodput if BASELINE in results else 0.0
    shown = Table(title=f"{mix}: goodput({LIMIT:g}), the rate at which {100 * WANTED:g} % are within {LIMIT:g}x alone")
    for column in ("server", "goodput /s", "x one at a time", "attained %", "95 % interval", "p50 s", "p95 s", "p99 s",
                   "mean slowdown", "p99 slowdown", "unfairness", "batch", "failures"):  # fmt: skip
        shown.add_column(column, justify="left" if column == "server" else "right")
    for name, result in results.items():
        at = result.confirmed
        if at is None:
            shown.add_row(name, "none")
            continue
        shown.add_row(
            name,
            f"{result.goodput:.2f}",
            f"{result.goodput / base:.2f}" if base else "",
            f"{100 * at.attainment:.1f}",
            f"{100 * at.attainment_low:.1f} to {100 * at.attainment_high:.1f}",
            *(f"{value:.2f}" for value in (at.latency_p50_s, at.latency_p95_s, at.latency_p99_s)),
            *(f"{value:.2f}" for value in (at.slowdown_mean, at.slowdown_p99, at.unfairness)),
            f"{at.batch_size_mean:.1f} / {at.batch_size_max}",
            str(at.failures),
        )
    return shown


def verdicts(results: Mapping[str, Result]) -> list[str]:
    """The two targets, each with what was reached."""
    ours = results[DARKROOM].goodput if DARKROOM in results else 0.0
    others = {name: result.goodput for name, result in results.items() if name.startswith("static-")}
    lines = []
    base = results[BASELINE].goodput if BASELINE in results else 0.0
    if base:
        lines.append(f"Darkroom over one at a time: {ours / base:.2f}x (target 4x)")
    best = max(others, key=lambda name: others[name], default=BASELINE)
    if others.get(best):
        lines.append(f"Darkroom over {best}, the best static batching: {ours / others[best]:.2f}x (target 2x)")
    return lines


def write(path: Path, about: Mapping[str, object], results: Mapping[str, Result]) -> None:
    """Infinite latencies, of requests without a picture, are written as JSON's dialects do: Infinity."""
    content = {**about, "results": {name: asdict(result) for name, result in results.items()}}
    path.write_text(json.dumps(content, indent=1) + "\n")


def plot(path: Path, mix: str, results: Mapping[str, Result]) -> None:
    """Left: throughput against p95 at every rate that was borne to its end. Right: slowdown by class at the goodput."""
    figure = Figure(figsize=(12, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, result in results.items():
        points = sorted(result.points, key=lambda point: point.throughput)
        wide = 2.5 if name == DARKROOM else 1.2
        left.plot(
            [point.throughput for point in points],
            [point.latency_p95_s for point in points],
            marker="o",
            label=name,
            linewidth=wide,
        )
    left.set(xlabel="pictures a second", ylabel="95th percentile of latency, s", yscale="log", title=f"{mix}: load")
    left.legend()
    confirmed = {name: result.confirmed for name, result in results.items() if result.confirmed is not None}
    for place, (name, at) in enumerate(confirmed.items()):
        width = 0.8 / len(confirmed)
        spots = [i + (place - (len(confirmed) - 1) / 2) * width for i in range(len(at.classes))]
        label = f"{name} at {at.rate:.2f}/s"
        right.bar(spots, [one.p95 for one in at.classes.values()], width, alpha=0.4, color=f"C{place}")
        right.bar(spots, [one.mean for one in at.classes.values()], width, label=label, color=f"C{place}")
        right.set_xticks(range(len(at.classes)), list(at.classes))
    right.axhline(LIMIT, color="black", linestyle=":", label=f"{LIMIT:g} times alone")
    right.set(ylabel="slowdown: mean, and paler p95", title=f"{mix}: slowdown by class, each at its own goodput")
    right.legend()
    figure.savefig(path, dpi=110)
