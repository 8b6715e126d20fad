"""The simulator's picture: mean slowdown against load above, slowdown by class below; a column a workload."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

LOAD = 0.8  # of the lower row


def plot(document: Mapping[str, Any], path: Path) -> None:
    cells = document["policies"]
    workloads = list(dict.fromkeys(cell["workload"] for cell in cells))
    policies = list(dict.fromkeys(cell["policy"] for cell in cells))
    loads = sorted({cell["load"] for cell in cells})
    shown = min(loads, key=lambda load: abs(load - LOAD))
    figure = Figure(figsize=(4.2 * len(workloads), 7.5), layout="constrained")
    axes = figure.subplots(2, len(workloads), squeeze=False)
    for column, workload in enumerate(workloads):
        above, below = axes[0][column], axes[1][column]
        for i, policy in enumerate(policies):
            mine = [cell for cell in cells if (cell["workload"], cell["policy"]) == (workload, policy)]
            means = [cell["mean"] for cell in mine]
            above.plot(loads, [mean["value"] for mean in means], marker="o", label=policy)
            above.fill_between(loads, [mean["low"] for mean in means], [mean["high"] for mean in means], alpha=0.15)
            by_class = next(cell["class_p99"] for cell in mine if cell["load"] == shown)
            places = [place + (i - len(policies) / 2 + 0.5) * 0.8 / len(policies) for place in range(len(by_class))]
            below.bar(places, list(by_class.values()), 0.8 / len(policies), label=policy)
        above.set(title=workload, xlabel="load (1: all that first-come can serve)", yscale="log")
        below.set(xlabel="class: side / steps", yscale="log")
        below.set_xticks(range(len(by_class)), list(by_class))
    axes[0][0].set_ylabel("mean slowdown")
    axes[1][0].set_ylabel(f"p99 slowdown at load {shown:g}")
    axes[0][0].legend()
    figure.savefig(path, dpi=80)
