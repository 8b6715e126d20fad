"""A gateway and workers as on hosts of their own: they share a queue and a bucket, and no disk."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.jobs.store import ImageNotStoredError, ImageStore, checkpoint_path, open_store
from tests.integration.s3 import BUCKET, s3_serving
from tests.processes import wait_until
from tests.system.up import ROOT

pytestmark = pytest.mark.system

MODEL = "tiny-sd3"
STORE_URL = f"s3://{BUCKET}/darkroom"
STEPS = 60


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


class Host:
    """One of the programs, in a folder of its own with nothing in it."""

    def __init__(self, folder: Path, module: str, environment: dict[str, str]) -> None:
        folder.mkdir()
        self.log = folder / "log"
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module],
                stdout=log,
                stderr=log,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder), **environment},
            )

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()


class Hosts:
    def __init__(self, folder: Path, environment: dict[str, str], exit_stack: ExitStack) -> None:
        self._folder = folder
        self._environment = environment
        self._exit = exit_stack
        port = free_port()
        self.http = exit_stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False))
        self._start("gateway", "app", DARKROOM_PORT=port)

    def worker(self, name: str, metrics_port: str) -> Host:
        return self._start(
            name,
            "workers",
            DARKROOM_WORKER_ID=name,
            DARKROOM_METRICS_PORT=metrics_port,
            DARKROOM_CHECKPOINT_EVERY_S="0.1",
            DARKROOM_CALIBRATION_S="0",
            DARKROOM_TORCH_THREADS="1",
        )

    def _start(self, name: str, module: str, **variables: str) -> Host:
        host = Host(self._folder / name, module, {**self._environment, **variables})
        self._exit.callback(host.end)
        return host

    def submit(self) -> dict[str, str]:
        request = {
            "prompt": "a small red ring",
            "model": MODEL,
            "seed": 7,
            "num_inference_steps": STEPS,
            "size": "64x64",
        }
        answer = self.http.post("/v1/images", json=request)
        assert answer.status_code == 202, answer.text
        job: dict[str, str] = answer.json()
        return job

    def is_ready(self) -> bool:
        try:
            return self.http.get("/readyz").is_success
        except httpx.TransportError:
            return False

    def status(self, job: dict[str, str]) -> str:
        return str(self.http.get(f"/v1/images/{job['id']}").json()["status"])

    def picture(self, job: dict[str, str]) -> bytes:
        return self.http.get(f"/v1/images/{job['id']}/content?index=0").raise_for_status().content


@pytest.fixture
def hosts(valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    with s3_serving() as s3, ExitStack() as exit_stack:
        for name, value in s3.items():
            monkeypatch.setenv(name, value)
        environment = {
            "DARKROOM_REDIS_URL": valkey_url,
            "DARKROOM_STORE_URL": STORE_URL,
            "DARKROOM_MODELS": MODEL,
            "DARKROOM_LEASE_S": "2",
        }
        yield Hosts(tmp_path, environment, exit_stack)


def sample(port: str, name: str) -> float:
    """The sum of a metric over its labels, as the worker's own port tells it."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    families = text_string_to_metric_families(text)
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)


async def is_kept(store: ImageStore, path: str) -> bool:
    try:
        return bool(await store.get(path))
    except ImageNotStoredError:
        return False


@pytest.mark.timeout(300)
async def test_a_picture_that_one_host_began_another_finishes_and_a_third_shows(hosts: Hosts) -> None:
    assert wait_until(hosts.is_ready, 60)
    store = open_store(STORE_URL)
    job = hosts.submit()
    first = hosts.worker("first", free_port())
    path = checkpoint_path(job["id"], 0)
    for _ in range(1200):
        if await is_kept(store, path):
            break
        await asyncio.sleep(0.05)
    assert await is_kept(store, path), first.log.read_text()
    first.kill()
    assert hosts.status(job) == "in_progress", "it was killed on the way"

    port = free_port()
    second = hosts.worker("second", port)
    assert wait_until(lambda: hosts.status(job) == "completed", 90), second.log.read_text()
    assert sample(port, "darkroom_jobs_resumed_total") == 1
    assert 0 < sample(port, "darkroom_denoise_steps_total") < STEPS
    shown = hosts.picture(job)
    assert shown.startswith(b"\x89PNG")
    for _ in range(200):
        if not await is_kept(store, path):
            break
        await asyncio.sleep(0.05)
    assert not await is_kept(store, path), "nothing is left of it"

    again = hosts.submit()
    assert wait_until(lambda: hosts.status(again) == "completed", 90)
    assert sample(port, "darkroom_denoise_steps_total") > STEPS
    assert hosts.picture(again) == shown, "as if nothing had happened"
