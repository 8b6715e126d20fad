"""Every import contract of pyproject.toml is broken on purpose, in a copy, and must notice."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Contract id -> a module, and an import that it must not have.
OFFENCES = {
    "gateway-is-torch-free": ("app/metrics.py", "import torch"),
    "workers-know-only-the-contract": ("workers/metrics.py", "import fastapi"),
    "contract-is-a-leaf": ("app/jobs/keys.py", "import app.settings"),
    "engine-knows-no-redis": ("workers/engine/request.py", "import redis"),
    "scheduler-has-no-tensors": ("workers/engine/scheduler.py", "import workers.engine.sampling"),
    "access-is-light": ("app/access/key.py", "import httpx"),
    "gateway-layers": ("app/catalog/catalog.py", "import app.api.deps"),
    "worker-layers": ("workers/pipelines/pixels.py", "import workers.worker"),
    "cli-speaks-http": ("app/cli/generate.py", "import app.api.schemas"),
}


def lint_imports(root: Path) -> tuple[int, str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("copy")
    shutil.copy(ROOT / "pyproject.toml", root)
    for package in ("app", "workers"):
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("models", "__pycache__"))
    return root


def test_every_contract_has_its_offence_here() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert {contract["id"] for contract in contracts} == set(OFFENCES)


def test_the_code_keeps_them_all(copy: Path) -> None:
    code, output = lint_imports(copy)
    assert code == 0, output


@pytest.mark.parametrize("contract", OFFENCES)
def test_an_offence_breaks_its_contract(copy: Path, contract: str) -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    name = next(entry["name"] for entry in contracts if entry["id"] == contract)
    module, offence = OFFENCES[contract]
    original = (copy / module).read_text()
    (copy / module).write_text(f"{original}\n{offence}  # noqa\n")
    try:
        code, output = lint_imports(copy)
    finally:
        (copy / module).write_text(original)
    assert code != 0
    assert f"{name} BROKEN" in " ".join(output.split())
