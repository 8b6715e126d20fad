"""The Compose stack for tests: whatever Docker Engine and whichever Compose there are."""

import json
import logging
import os
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx

from tests.processes import wait_until

ROOT = Path(__file__).parents[2]
# As docker-compose.yml has it; empty for what pip finds by itself.
TORCH_INDEX = os.environ.get("TORCH_INDEX", "https://download.pytorch.org/whl/cpu")
TARGETS: Mapping[str, str] = {"gateway": "darkroom-gateway", "worker": "darkroom-worker-cpu"}

log = logging.getLogger(__name__)


def docker(*arguments: str, cwd: Path = ROOT) -> str:
    """Run docker and give what it printed. Raises CalledProcessError."""
    return _output(["docker", *arguments], cwd)


def build(target: str, tag: str, context: Path = ROOT) -> float:
    """Build an image of ours; the seconds it took."""
    started_s = time.monotonic()
    # The host's network, since a bridge may have no way to a package index.
    options = ["--network", "host", "--target", target, "--build-arg", f"TORCH_INDEX={TORCH_INDEX}"]
    docker("build", "--quiet", *options, "--tag", f"{TARGETS[target]}:{tag}", ".", cwd=context)
    return time.monotonic() - started_s


def inspect(name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(docker("inspect", name))
    return found[0]


class Stack:
    """docker-compose.yml, running under a project name of its own, without Grafana."""

    services = ("redis", "gateway", "worker", "prometheus")

    def __init__(self, tag: str, port: int, empty_env_file: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._project = f"darkroom-test-{port}"
        self._environment = {**os.environ, "IMAGE_TAG": tag, "GATEWAY_PORT": str(port), "WORKER_CPUS": "1"}
        # A developer's own .env is not what is tested.
        self._command = [*_compose(), "--env-file", str(empty_env_file), "--project-name", self._project]

    def compose(self, *arguments: str) -> str:
        started_s = time.monotonic()
        output = _output([*self._command, *arguments], ROOT, self._environment)
        log.info("compose %s: %.1f s", " ".join(arguments), time.monotonic() - started_s)
        return output

    def up(self) -> None:
        self.compose("up", "-d", "--no-build", *self.services)
        assert wait_until(lambda: self.workers() == 1, 120), self.compose("logs", "--tail", "50")

    def workers(self) -> int:
        """Live workers, as the gateway says; -1 while it cannot say."""
        try:
            answer = httpx.get(f"{self.url}/readyz", timeout=5)
        except httpx.TransportError:
            return -1
        return int(answer.json()["workers"]) if answer.is_success else -1

    def container(self, service: str) -> str:
        return self.compose("ps", "-q", service).strip()

    def state(self, service: str) -> dict[str, Any]:
        found: dict[str, Any] = inspect(self.container(service))["State"]
        return found

    def query(self, promql: str) -> float | None:
        """What Prometheus answers, which only containers can ask: one number, or None without data."""
        url = f"http://127.0.0.1:9090/api/v1/query?{urlencode({'query': promql})}"
        answer = json.loads(docker("exec", self.container("prometheus"), "wget", "-q", "-O", "-", url))
        results = answer["data"]["result"]
        assert len(results) <= 1, results
        return float(results[0]["value"][1]) if results else None

    def submit(self, **request: object) -> str:
        """Ask for pictures until the gateway says yes, and give the job's URL."""
        while True:
            try:
                answer = httpx.post(f"{self.url}/v1/images", json=request, timeout=30)
            except httpx.TransportError as error:
                log.info("no answer to a prompt: %r", error)
                continue
            if answer.status_code == 202:
                return str(answer.json()["urls"]["self"])
            assert answer.status_code == 503, answer.text
            time.sleep(0.2)

    def finished(self, jobs: Iterable[str], within_s: float) -> list[dict[str, Any]]:
        """Wait until all these jobs have ended well."""

        def statuses() -> set[str]:
            return {str(self.read(job).get("status")) for job in jobs}

        assert wait_until(lambda: statuses() == {"completed"}, within_s), statuses()
        return [self.read(job) for job in jobs]

    def read(self, job: str) -> dict[str, Any]:
        try:
            answer = httpx.get(job, timeout=30)
        except httpx.TransportError:
            return {}
        view: dict[str, Any] = answer.json()
        return view

    def down(self) -> None:
        for service in self.services:
            log.info("log of %s:\n%s", service, self.compose("logs", "--no-color", "--tail", "60", service))
        self.compose("down", "--volumes")


def _compose() -> list[str]:
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    return ["docker", "compose"] if plugin.returncode == 0 else [os.environ.get("COMPOSE", "docker-compose")]


def _output(command: list[str], cwd: Path, environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout
