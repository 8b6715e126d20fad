"""A gateway, two workers and a real Prometheus that watches them as deploy/ says, only more often."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.deploy.tools import DEPLOY, ROOT, program
from tests.processes import wait_until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Watched:
    """The stack. All its processes end with the `ends` that is handed in."""

    def __init__(self, folder: Path, redis_url: str, models: list[str], ends: ExitStack) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        ends.callback(self._end)
        gateway, workers, prometheus = free_port(), [free_port(), free_port()], free_port()
        common = {
            "DARKROOM_REDIS_URL": redis_url,
            "DARKROOM_STORE_URL": f"file://{folder}/images",
            "DARKROOM_MODELS": ",".join(models),
            "OMP_NUM_THREADS": "1",
        }
        python = [sys.executable, "-m"]
        self._start("gateway", [*python, "app"], common | {"DARKROOM_PORT": str(gateway)})
        for number, port in enumerate(workers):
            of_its_own = {
                "DARKROOM_WORKER_ID": f"worker-{number}",
                "DARKROOM_METRICS_PORT": str(port),
                "DARKROOM_MAX_IMAGES": "4",  # so that jobs wait
                "DARKROOM_CHECKPOINT_EVERY_S": "0.2",
                "DARKROOM_CALIBRATION_S": "0.1",
                "DARKROOM_TORCH_THREADS": "1",
                "DARKROOM_GPU_USD_PER_HOUR": "3.6",
            }
            self._start(f"worker-{number}", [*python, "workers"], common | of_its_own)
        self._start_prometheus(prometheus, {"darkroom-gateway": [gateway], "darkroom-worker": workers})
        self.http = ends.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{gateway}", trust_env=False))
        self.prometheus = Prometheus(
            ends.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{prometheus}", trust_env=False))
        )

    def wait_until_scraped(self, within_s: float) -> None:
        """Wait until every target answers; so its counters are seen before anything is counted."""
        assert wait_until(self.prometheus.is_ready, within_s), self.logs()
        assert wait_until(lambda: self.prometheus.value('sum(up{job=~"darkroom-.*"})') == 3, within_s), self.logs()

    def logs(self) -> str:
        return "\n".join(f"{path.name}:\n{path.read_text()[-2000:]}" for path in sorted(self._folder.glob("*.log")))

    def _end(self) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start_prometheus(self, port: int, targets: dict[str, list[int]]) -> None:
        folder = self._folder / "prometheus"
        shutil.copytree(DEPLOY / "prometheus", folder)
        config = yaml.safe_load((folder / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        for scrape in config["scrape_configs"]:
            del scrape["dns_sd_configs"]
            scrape["static_configs"] = [{"targets": [f"127.0.0.1:{port}" for port in targets[scrape["job_name"]]]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        command = [
            program("prometheus"),
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        self._start("prometheus", command, {})

    def _start(self, name: str, command: list[str], variables: dict[str, str]) -> None:
        plain = {key: value for key, value in os.environ.items() if not key.startswith("DARKROOM_")}
        with (self._folder / f"{name}.log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=plain | variables)
        self._processes.append(process)


class Prometheus:
    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def is_ready(self) -> bool:
        try:
            return self._http.get("/-/ready").is_success
        except httpx.TransportError:
            return False

    def value(self, expr: str) -> float | None:
        """What an expression that gives one value gives now; None where it gives none."""
        found = self._get("query", query=expr)["result"]
        if not found:
            return None
        ((_, value),) = (one["value"] for one in found)
        return float(value)

    def series(self, expr: str, over_s: float) -> list[dict[str, Any]]:
        """What a panel would draw of the last seconds."""
        end_s = time.time()
        result: list[dict[str, Any]] = self._get(
            "query_range", query=expr, start=str(end_s - over_s), end=str(end_s), step="1"
        )["result"]
        return result

    def label_values(self, metric: str, label: str) -> list[str]:
        response = self._http.get(f"/api/v1/label/{label}/values", params={"match[]": metric})
        values: list[str] = response.raise_for_status().json()["data"]
        return values

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str, **parameters: str) -> dict[str, Any]:
        response = self._http.get(f"/api/v1/{path}", params=parameters)
        assert response.is_success, response.text
        data: dict[str, Any] = response.json()["data"]
        return data
