"""The measured step times that workers start from: what was measured, and found by the GPU's name."""

import json
from importlib import resources

import pytest
import torch

from app.catalog.catalog import Catalog
from tests.benchmarks.gpu.seed_table import RESULTS, seed_rows, to_json
from tests.benchmarks.sched_sim.step_times import MEASURED, load_table
from workers.__main__ import measured_before
from workers.engine.cost import CostModel, Stage, TableShape
from workers.step_times.table import FOLDER, file_name, seed_table

H100 = "NVIDIA H100 80GB HBM3"
ALL_RESULTS = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("gpu-nvidia-*.json"))]


@pytest.mark.parametrize("results", ALL_RESULTS, ids=lambda results: results["machine"]["device"])
def test_each_file_is_what_the_command_makes_of_the_results(results: dict[str, object]) -> None:
    machine = results["machine"]
    assert isinstance(machine, dict)
    written = resources.files("workers.step_times") / file_name(machine["device"])
    assert written.read_text(encoding="utf-8") == to_json(seed_rows(results))


def test_each_file_has_its_results() -> None:
    assert {path.name for path in FOLDER.glob("*.json")} == {file_name(r["machine"]["device"]) for r in ALL_RESULTS}


def test_a_gpu_is_found_by_its_name_and_no_other_takes_its_place() -> None:
    table = seed_table(H100)
    assert table is not None
    assert {shape.model for shape in table} <= set(Catalog.load())
    assert seed_table("NVIDIA H100 PCIe") is None
    assert seed_table("") is None
    assert load_table(MEASURED) == table, "the simulator's"


def test_a_cost_model_that_starts_from_it_answers_what_was_measured() -> None:
    cost = CostModel(seed_table(H100))
    (results,) = (results for results in ALL_RESULTS if results["machine"]["device"] == H100)
    for row in results["grid"]:
        if row["mode"] == "eager" and row["model"].startswith("flux"):
            shape = TableShape(Stage.DENOISE, row["model"], row["height"], row["width"])
            assert cost.seconds(Stage.DENOISE, shape, row["rows"]) == pytest.approx(row["ms"] / 1000)
    square = TableShape(Stage.VAE_DECODE, "sd3-medium", 1024, 1024)
    assert cost.seconds(Stage.VAE_DECODE, square, 4) == pytest.approx(0.34757)
    # T5 at 512 tokens and CLIP-L; for sd3.5 T5 at 256 and both CLIPs.
    assert cost.seconds(Stage.TEXT_ENCODE, square._replace(model="flux-dev"), 1) == pytest.approx(0.030977, rel=1e-3)
    assert cost.seconds(Stage.TEXT_ENCODE, square._replace(model="sd3.5-large"), 1) == pytest.approx(0.032051, rel=1e-3)


def test_it_says_nothing_of_a_cpu_or_of_another_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: H100)
    gpu = torch.device("cuda")
    assert measured_before(gpu, torch.bfloat16) == seed_table(H100)
    assert measured_before(gpu, torch.float32) is None
    assert measured_before(torch.device("cpu"), torch.bfloat16) is None
