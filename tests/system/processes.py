"""A real gateway and real workers, each a process of its own, beside a server that the test has."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.processes import wait_until

MODEL = "tiny-flux-schnell"
_ROOT = Path(__file__).parents[2]


class Process:
    """One of ours. It writes its log into a file of the test's folder."""

    def __init__(
        self,
        module: str,
        log: Path,
        prefix: tuple[str, ...],
        environment: Mapping[str, str],
        arguments: tuple[str, ...] = (),
    ) -> None:
        self._log = log
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DARKROOM_")}
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [*prefix, sys.executable, "-m", module, *arguments],
                cwd=_ROOT,
                env=kept | dict(environment),
                stdout=out,
                stderr=out,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def said(self) -> str:
        return self._log.read_text()

    def wait_for(self, words: str, within_s: float = 200) -> None:
        assert wait_until(lambda: words in self.said() or not self.is_running, within_s), self.said()
        assert self.is_running, self.said()

    def send(self, signum: signal.Signals) -> None:
        self._process.send_signal(signum)

    def end(self) -> None:
        self.send(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Client:
    """Of a gateway's HTTP side."""

    def __init__(self, url: str, pid: int) -> None:
        self.url = url
        self.pid = pid  # the gateway's
        self._http = httpx.Client(base_url=url, timeout=20)

    def post(self, **fields: object) -> httpx.Response:
        return self._http.post(
            "/v1/images", json={"prompt": "a small red ring", "model": MODEL, "size": "64x64"} | fields
        )

    def submit(self, **fields: object) -> str:
        answer = self.post(**fields)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        answer = self._http.get(f"/v1/images/{job_id}")
        assert answer.status_code == 200, answer.text
        view: dict[str, Any] = answer.json()
        return view

    def list(self) -> list[dict[str, Any]]:
        answer = self._http.get("/v1/images")
        assert answer.status_code == 200, answer.text
        jobs: list[dict[str, Any]] = answer.json()["data"]
        return jobs

    def content(self, job_id: str) -> httpx.Response:
        return self._http.get(f"/v1/images/{job_id}/content")

    def cancel(self, job_id: str) -> None:
        answer = self._http.post(f"/v1/images/{job_id}/cancel")
        assert answer.status_code == 200, answer.text

    def wait(self, job_id: str, status: str, within_s: float = 60) -> dict[str, Any]:
        assert wait_until(lambda: self.job(job_id)["status"] == status, within_s), self.job(job_id)
        return self.job(job_id)

    def close(self) -> None:
        self._http.close()


@contextmanager
def gateway(folder: Path, redis_url: str, store_url: str, **environment: str) -> Iterator[Client]:
    """Environment without the prefix DARKROOM_ is told by its own name: LD_PRELOAD and so on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = Process(
        "app",
        folder / "gateway.log",
        (),
        {"DARKROOM_REDIS_URL": redis_url, "DARKROOM_STORE_URL": store_url, "DARKROOM_PORT": str(port), **environment},
    )
    client = Client(f"http://127.0.0.1:{port}", process.pid)
    try:
        process.wait_for("Application startup complete", 30)
        time.sleep(0.1)
        yield client
    finally:
        client.close()
        process.end()


@contextmanager
def worker(folder: Path, redis_url: str, store_url: str, name: str = "w1", **environment: str) -> Iterator[Process]:
    process = Process("workers", folder / f"{name}.log", (), _of_worker(redis_url, store_url, name) | environment)
    try:
        process.wait_for("worker_ready")
        yield process
    finally:
        process.end()


@contextmanager
def null_worker(
    folder: Path, redis_url: str, store_url: str, name: str = "null", **environment: str
) -> Iterator[Process]:
    """A real worker around a model that costs nothing."""
    told = _of_worker(redis_url, store_url, name) | environment
    log = folder / f"{name}.log"
    process = Process("tests.system.chaos.null_worker", log, (), told, ("0", str(folder)))
    try:
        process.wait_for("worker_ready")
        yield process
    finally:
        process.end()


def _of_worker(redis_url: str, store_url: str, name: str) -> dict[str, str]:
    return {
        "DARKROOM_REDIS_URL": redis_url,
        "DARKROOM_STORE_URL": store_url,
        "DARKROOM_WORKER_ID": name,
        "DARKROOM_MODELS": MODEL,
        "DARKROOM_LEASE_S": "5",
        "DARKROOM_TORCH_THREADS": "1",
        "DARKROOM_CALIBRATION_S": "0",
    }
