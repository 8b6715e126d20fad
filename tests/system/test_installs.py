"""The extras in fresh environments: a gateway without torch, a worker without fastapi. Slow: make test-installs"""

import json
import os
import subprocess
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.install, pytest.mark.timeout(600)]


def install(folder: Path, extra: str) -> Path:
    """A new environment with the built package and one extra, at the tested versions; its python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    constraints = str(ROOT / "constraints.txt")
    command = [str(python), "-m", "pip", "install", "--quiet", "--constraint", constraints, f"{ROOT}[{extra}]"]
    subprocess.run(command, check=True)
    return python


def installed(python: Path) -> set[str]:
    listed = subprocess.run([python, "-m", "pip", "list", "--format", "json"], check=True, capture_output=True).stdout
    return {package["name"].lower() for package in json.loads(listed)}


def test_a_gateway_installs_and_starts_without_torch(tmp_path: Path) -> None:
    python = install(tmp_path / "venv", "gateway")
    assert installed(python).isdisjoint({"torch", "diffusers", "transformers"})
    environment = os.environ | {"DARKROOM_STORE_URL": f"file://{tmp_path}/images"}
    code = "from app.main import create_app; from app.settings import GatewaySettings; create_app(GatewaySettings())"
    subprocess.run([python, "-P", "-c", code], check=True, cwd=tmp_path, env=environment)
    subprocess.run([python.with_name("darkroom"), "--help"], check=True, cwd=tmp_path, stdout=subprocess.DEVNULL)


def test_a_worker_installs_and_draws_without_fastapi(tmp_path: Path) -> None:
    python = install(tmp_path / "venv", "worker")
    assert installed(python).isdisjoint({"fastapi", "uvicorn", "starlette"})
    code = """
import time, torch
from app.catalog.catalog import Catalog
from workers.engine.cost import CostModel
from workers.engine.engine import Engine
from workers.engine.request import DenoiseRequest, ImageSpec
from workers.engine.scheduler import Scheduler
from workers.pipelines.load import load_pipeline
import workers.__main__
card = Catalog.load()["tiny-flux-schnell"]
pipeline = load_pipeline(card, None, torch.device("cpu"), torch.float32)
engine = Engine({card.name: pipeline}, Scheduler(CostModel(), max_rows=2), time.perf_counter)
engine.admit([DenoiseRequest("a", ImageSpec(card.name, "a red ring", None, 64, 64, 1, 0.0, 1.0, 32, 1), 0)])
engine.step()
assert engine.step().drawn[0].pixels.shape == (64, 64, 3)
"""
    subprocess.run([python, "-P", "-c", code], check=True, cwd=tmp_path)
