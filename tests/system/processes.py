"""A real gateway and real workers, each a process of its own, beside a server that the test has.

Each may run another copy of the code than the tests' own: `root` is the folder that has its `app` and `workers`.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.processes import wait_until

MODEL = "tiny-flux-schnell"
NULL_MODEL = "tiny-flux-dev"  # as null workers say that they serve
ROOT = str(Path(__file__).parents[2])


class Process:
    """One of ours. It writes its log into a file of the test's folder."""

    def __init__(self, module: Sequence[str], log: Path, environment: Mapping[str, str], root: str) -> None:
        """module: its name, and words for it."""
        self._log = log
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *module],
                cwd=root,
                env=clean_environment() | dict(environment),
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

    def events(self, name: str) -> list[dict[str, Any]]:
        """Its log's lines of this name."""
        lines = (json.loads(line) for line in self.said().splitlines() if line.startswith("{") and line.endswith("}"))
        return [line for line in lines if line["event"] == name]

    def wait_for(self, words: str, within_s: float = 200) -> None:
        assert wait_until(lambda: words in self.said() or not self.is_running, within_s), self.said()
        assert self.is_running, self.said()

    def send(self, signum: signal.Signals) -> None:
        self._process.send_signal(signum)

    def wait(self, within_s: float) -> int:
        """Give its exit code. Raises TimeoutExpired."""
        return self._process.wait(within_s)

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

    def __init__(self, url: str, process: Process) -> None:
        self.url = url
        self.process = process
        self._http = httpx.Client(base_url=url, timeout=20)

    def post(self, **fields: object) -> httpx.Response:
        return self._http.post(
            "/v1/images", json={"prompt": "a small red ring", "model": MODEL, "size": "64x64"} | fields
        )

    def submit(self, **fields: object) -> str:
        answer = self.post(**fields)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def get(self, job_id: str) -> httpx.Response:
        return self._http.get(f"/v1/images/{job_id}")

    def job(self, job_id: str) -> dict[str, Any]:
        answer = self.get(job_id)
        assert answer.status_code == 200, answer.text
        view: dict[str, Any] = answer.json()
        return view

    def cancel(self, job_id: str) -> None:
        answer = self._http.post(f"/v1/images/{job_id}/cancel")
        assert answer.status_code == 200, answer.text

    def list(self) -> list[dict[str, Any]]:
        answer = self._http.get("/v1/images")
        assert answer.status_code == 200, answer.text
        jobs: list[dict[str, Any]] = answer.json()["data"]
        return jobs

    def workers_live(self, model: str) -> int:
        return next(
            int(card["workers_live"]) for card in self._http.get("/v1/models").json()["data"] if card["id"] == model
        )

    def content(self, job_id: str) -> httpx.Response:
        return self._http.get(f"/v1/images/{job_id}/content")

    def wait(self, job_id: str, status: str, within_s: float = 60) -> dict[str, Any]:
        assert wait_until(lambda: self.job(job_id)["status"] == status, within_s), self.job(job_id)
        return self.job(job_id)

    def close(self) -> None:
        self._http.close()


def clean_environment() -> dict[str, str]:
    """Whoever runs the tests may have set DARKROOM_ variables for their own server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("DARKROOM_")}


@contextmanager
def gateway(
    folder: Path, redis_url: str, store_url: str, name: str = "gateway", *, root: str = ROOT, **environment: str
) -> Iterator[Client]:
    """Environment without the prefix DARKROOM_ is told by its own name: LD_PRELOAD and so on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = Process(
        ("app",),
        folder / f"{name}.log",
        {"DARKROOM_REDIS_URL": redis_url, "DARKROOM_STORE_URL": store_url, "DARKROOM_PORT": str(port), **environment},
        root,
    )
    client = Client(f"http://127.0.0.1:{port}", process)
    try:
        process.wait_for("Uvicorn running on")  # which it says when its socket is open
        yield client
    finally:
        client.close()
        process.end()


@contextmanager
def worker(
    folder: Path, redis_url: str, store_url: str, name: str = "w1", *, root: str = ROOT, **environment: str
) -> Iterator[Process]:
    told = {"DARKROOM_MODELS": MODEL, **environment}
    with _worker(("workers",), folder, redis_url, store_url, name, root, told) as process:
        yield process


@contextmanager
def null_worker(
    folder: Path,
    redis_url: str,
    store_url: str,
    name: str = "w1",
    *,
    step_ms: str = "10",
    root: str = ROOT,
    **environment: str,
) -> Iterator[Process]:
    """A worker whose model only sleeps; its pictures differ with seed, prompt and steps."""
    tallies = folder / "tallies"
    tallies.mkdir(exist_ok=True)
    module = ("tests.system.chaos.null_worker", step_ms, str(tallies))
    told = {"DARKROOM_MODELS": NULL_MODEL, **environment}
    with _worker(module, folder, redis_url, store_url, name, root, told) as process:
        yield process


def steps_taken(folder: Path) -> int:
    """Steps that all null workers of this folder have taken, one a row."""
    return sum(int(path.read_text()) for path in (folder / "tallies").iterdir())


@contextmanager
def _worker(
    module: Sequence[str],
    folder: Path,
    redis_url: str,
    store_url: str,
    name: str,
    root: str,
    environment: Mapping[str, str],
) -> Iterator[Process]:
    process = Process(
        module,
        folder / f"{name}.log",
        {
            "DARKROOM_REDIS_URL": redis_url,
            "DARKROOM_STORE_URL": store_url,
            "DARKROOM_WORKER_ID": name,
            "DARKROOM_LEASE_S": "5",
            "DARKROOM_TORCH_THREADS": "1",
            "DARKROOM_CALIBRATION_S": "0",
            "OMP_NUM_THREADS": "1",
            **environment,
        },
        root,
    )
    try:
        process.wait_for("worker_ready")
        yield process
    finally:
        process.end()
