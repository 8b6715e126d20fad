"""Scheduling policies on a virtual clock. `python -m tests.benchmarks.sched_sim`

The server's real scheduler and cost model, which learns step times as it goes, against other policies, on the same
requests. Slowdown: a request's latency over its latency on an idle machine. Load: the arrival rate in units of what
first-come can serve. The oracle is shortest-remaining-first, one request at a time, with the true times known.
"""

import argparse
import dataclasses
import json
import platform
import random
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.sched_sim.plot import plot
from tests.benchmarks.sched_sim.policies import POLICIES, VARIANTS
from tests.benchmarks.sched_sim.simulator import Machine, Size, requests_for, simulate
from tests.benchmarks.sched_sim.slowdowns import Summary, goodput, summarise
from tests.benchmarks.sched_sim.step_times import MAX_ROWS, MEASURED, NATIVE, load_table
from tests.benchmarks.sched_sim.workloads import BURST_CV, MIXES, arrivals
from workers.engine.cost import CostModel

RESULTS = Path(__file__).parents[1] / "results"
WORKLOADS = {**{name: (mix, 1.0) for name, mix in MIXES.items()}, "burst": (MIXES["mix-res"], BURST_CV)}
NOISE = 0.03  # standard deviation of a step's time, as a share of it
TARGET_LOAD = 0.8


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One policy under one load of one workload."""

    workload: str
    load: float
    policy: str
    table: str
    native: int
    count: int
    seeds: tuple[int, ...]


def run(cell: Cell) -> Summary:
    """Serve `count` requests for each seed."""
    mix, cv = WORKLOADS[cell.workload]
    table = load_table(cell.table)
    model = next(iter(table)).model
    truth = CostModel(table, max_rows=MAX_ROWS)
    sizes = [Size(model, kind.pixels(cell.native), kind.pixels(cell.native)) for kind in mix]
    solo_s = sum(
        kind.share * Machine(truth).solo_s(size, 1, kind.num_inference_steps)
        for kind, size in zip(mix, sizes, strict=True)
    )
    names, slowdowns, rows, steps = [], [], 0, 0
    for seed in cell.seeds:
        machine = Machine(truth, NOISE, random.Random(seed))
        requests = requests_for(arrivals(mix, cell.count, cell.load / solo_s, seed, cv), machine, model, cell.native)
        simulate(requests, {**VARIANTS, **POLICIES}[cell.policy](machine, MAX_ROWS), machine)
        names += [request.request_class.name for request in requests]
        slowdowns += [request.slowdown for request in requests]
        rows, steps = rows + machine.rows, steps + machine.steps
    return summarise(names, slowdowns, rows / steps)


def table_of(title: str, results: Mapping[Cell, Summary]) -> Table:
    table = Table(title=title)
    for column in ("workload", "load", "policy", "mean slowdown", "p99", "worst class p99", "<= 3", "fairness", "rows"):
        table.add_column(column, justify="left" if column in ("workload", "policy") else "right")
    before = None
    for cell, summary in results.items():
        if before and before != (cell.workload, cell.load):
            table.add_section()
        before = cell.workload, cell.load
        table.add_row(
            cell.workload,
            f"{cell.load:g}",
            cell.policy,
            str(summary.mean),
            f"{summary.p99.value:.1f}",
            f"{summary.worst_class_p99.value:.1f}",
            f"{100 * summary.attainment:.0f} %",
            f"{summary.fairness:.1f}",
            f"{summary.mean_rows:.1f}",
        )
    return table


def verdicts(results: Mapping[Cell, Summary]) -> Iterator[dict[str, str | float]]:
    """Ours against first-come, workload by workload, at the load that the targets name."""
    at = {(cell.workload, cell.policy): summary for cell, summary in results.items() if cell.load == TARGET_LOAD}
    for workload in dict.fromkeys(cell.workload for cell in results):
        if (workload, "ours") not in at:
            continue
        ours, first_come, oracle = (at[workload, name] for name in ("ours", "first-come", "srpt-oracle"))
        yield {
            "workload": workload,
            "mean_ratio": ours.mean.value / first_come.mean.value,
            "oracle_mean_ratio": oracle.mean.value / first_come.mean.value,
            "worst_class_p99_ratio": ours.worst_class_p99.value / first_come.worst_class_p99.value,
            "own_class_p99_ratio": max(ours.class_p99[name] / p99 for name, p99 in first_come.class_p99.items()),
            "oracle_own_class_p99_ratio": max(
                oracle.class_p99[name] / p99 for name, p99 in first_come.class_p99.items()
            ),
        }


def sentence(verdict: Mapping[str, str | float]) -> str:
    return (
        "{workload}: mean {mean_ratio:.2f} of first-come's (target 0.50, oracle {oracle_mean_ratio:.2f}); worst "
        "class's p99 {worst_class_p99_ratio:.2f} of first-come's (target 1.50); a class's p99 at most "
        "{own_class_p99_ratio:.2f} of its own under first-come (oracle {oracle_own_class_p99_ratio:.2f})"
    ).format_map(verdict)


def goodputs(results: Mapping[Cell, Summary]) -> dict[str, dict[str, float]]:
    attained: dict[str, dict[str, dict[float, float]]] = {}
    for cell, summary in results.items():
        attained.setdefault(cell.workload, {}).setdefault(cell.policy, {})[cell.load] = summary.attainment
    return {
        workload: {policy: goodput(by_load) for policy, by_load in policies.items()}
        for workload, policies in attained.items()
    }


def dump(results: Mapping[Cell, Summary]) -> list[dict[str, object]]:
    return [
        {
            "workload": cell.workload,
            "load": cell.load,
            "policy": cell.policy,
            **dataclasses.asdict(summary),
            "fairness": summary.fairness,
        }
        for cell, summary in results.items()
    ]


def serve_all(cells: Sequence[Cell], jobs: int) -> dict[Cell, Summary]:
    with ProcessPoolExecutor(jobs) as pool:
        return dict(zip(cells, pool.map(run, cells), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--table",
        default=MEASURED,
        help="a GPU of workers/step_times, a formula of step_times.py, or a JSON file of one model",
    )
    parser.add_argument("--native", type=int, default=NATIVE, help="side of the table's model, in pixels")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.3, 0.5, 0.8, 0.95, 1.2])
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--count", type=int, default=1000, help="requests for each seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--variants", type=float, nargs="*", default=[TARGET_LOAD], help="loads for variants of ours")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()

    def cells(policies: Mapping[str, object], loads: Sequence[float]) -> list[Cell]:
        return [
            Cell(workload, load, policy, options.table, options.native, options.count, tuple(options.seeds))
            for workload in options.workloads
            for load in loads
            for policy in policies
        ]

    results = serve_all(cells(POLICIES, options.loads), options.jobs)
    variants = serve_all(cells(VARIANTS, options.variants), options.jobs)
    console = Console(width=130)
    console.print(table_of(f"policies, {options.table}, {options.count} requests x seeds {options.seeds}", results))
    console.print(table_of("variants of ours", variants))
    judged = list(verdicts(results))
    for verdict in judged:
        console.print(sentence(verdict), soft_wrap=True)
    goodput_loads = goodputs(results)
    console.print("goodput(3), as a load, 0 where it is below all that were run:", goodput_loads)
    options.out.mkdir(parents=True, exist_ok=True)
    stem = options.out / f"sched_sim_{Path(options.table).stem}"
    document = {
        "command": shlex.join(["python", "-m", "tests.benchmarks.sched_sim", *sys.argv[1:]]),
        "seeds": options.seeds,
        "count": options.count,
        "max_rows": MAX_ROWS,
        "noise": NOISE,
        "versions": {"python": platform.python_version(), "numpy": version("numpy")},
        "against_first_come": judged,
        "goodput_3_load": goodput_loads,
        "policies": dump(results),
        "variants": dump(variants),
    }
    stem.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    plot(document, stem.with_suffix(".png"))


if __name__ == "__main__":
    main()
