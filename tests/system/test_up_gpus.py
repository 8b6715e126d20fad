"""`darkroom up` where the driver lists GPUs: one worker each, and each sees its own only."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.app.test_gpus import FOUR, machine
from tests.system.up import Up


@pytest.fixture
def up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Up]:
    driver = tmp_path / "driver"
    driver.mkdir()
    variables = machine(driver, FOUR, {"CUDA_VISIBLE_DEVICES": "3,1", "DARKROOM_CALIBRATION_S": "0"})
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    running = Up(tmp_path / "data")
    try:
        yield running
    finally:
        running.end()


def test_each_gpu_has_a_worker_of_its_own(up: Up) -> None:
    up.wait_until_ready()
    assert httpx.get(f"{up.url}/readyz").json()["workers"] == 2
    environments = [
        dict(pair.partition("=")[::2] for pair in Path(f"/proc/{pid}/environ").read_text().split("\0"))
        for pid, command in up.family().items()
        if "-m workers" in command and "leash.py" not in command
    ]
    seen = {worker["DARKROOM_WORKER_ID"][:8]: worker["CUDA_VISIBLE_DEVICES"] for worker in environments}
    assert seen == {"worker-1": "3", "worker-2": "1"}
