"""A real Prometheus watches a stack under load: it has what the client saw, to the last step, and data for panels."""

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
from safetensors.torch import load_file, save_file

from deploy.grafana import dashboard
from tests.deploy.contract import ONLY_WITH_A_GPU
from tests.deploy.promql import reads
from tests.deploy.rules import all_rules
from tests.processes import wait_until
from tests.system.up import ROOT
from tests.system.watched import Watched

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

GOOD = "tiny-flux-schnell"
BROKEN = "tiny-flux-dev"
TERMINAL = {"completed", "failed", "canceled"}
# Has no series until it happens, and in this run it does not.
DOES_NOT_HAPPEN = {
    "darkroom_batch_splits_total",
    "darkroom_job_retries_total",
    "darkroom_rate_limited_total",
    "darkroom_webhook_deliveries_total",
}


@dataclass
class Ledger:
    """What the client asked and saw."""

    submitted: Counter[str] = field(default_factory=Counter)
    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    images: int = 0
    pixels: int = 0
    steps: int = 0
    cancels: int = 0


class Client:
    def __init__(self, stack: Watched) -> None:
        self._http = stack.http
        self.ledger = Ledger()
        self.jobs: list[str] = []

    def submit(self, model: str, **parameters: object) -> str:
        request = {"prompt": "a small red ring", "model": model, "seed": len(self.jobs), **parameters}
        answer = self._http.post("/v1/images", json=request)
        assert answer.status_code == 202, answer.text
        self.ledger.submitted[model] += 1
        self.jobs.append(answer.json()["id"])
        return self.jobs[-1]

    def view(self, job: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._http.get(f"/v1/images/{job}").raise_for_status().json()
        return answer

    def cancel(self, job: str) -> None:
        self._http.post(f"/v1/images/{job}/cancel").raise_for_status()
        self.ledger.cancels += 1

    def all_over(self) -> bool:
        return all(self.view(job)["status"] in TERMINAL for job in self.jobs)

    def close_the_books(self) -> None:
        for view in map(self.view, self.jobs):
            self.ledger.ended[view["model"], view["status"]] += 1
            for image in view["data"]:
                self.ledger.images += 1
                self.ledger.pixels += image["width"] * image["height"]
                self.ledger.steps += image["steps"]


@dataclass
class Run:
    stack: Watched
    ledger: Ledger
    seconds: float


@pytest.fixture(scope="module")
def run(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    client = redis.Redis.from_url(valkey_url)
    client.flushall()
    client.close()
    folder = tmp_path_factory.mktemp("watched")
    with ExitStack() as ends:
        stack = Watched(folder, valkey_url, [GOOD, f"{BROKEN}={without_numbers(folder / 'broken')}"], ends)
        stack.wait_until_scraped(within_s=180)
        started_s = time.monotonic()
        yield Run(stack, load(stack), time.monotonic() - started_s)


def without_numbers(folder: Path) -> Path:
    """A model whose every picture comes to nothing: its last layer is NaN."""
    shutil.copytree(ROOT / "workers" / "tiny" / "models" / BROKEN, folder)
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["proj_out.bias"].fill_(float("nan"))
    save_file(weights, path, metadata={"format": "pt"})
    return folder


def load(stack: Watched) -> Ledger:
    """Pictures of several sizes and steps, failures, and cancellations of what is drawn and of what waits."""
    client = Client(stack)
    for number in range(16):
        size = ("64x64", "128x128", "192x128")[number % 3]
        client.submit(GOOD, n=1 + number % 3, num_inference_steps=1 + number % 5, size=size)
    for number in range(4):
        client.submit(BROKEN, n=1 + number % 2, num_inference_steps=4)
    long = [client.submit(GOOD, num_inference_steps=100, size="256x256") for _ in range(12)]
    drawn = lambda job: (view := client.view(job))["status"] == "in_progress" and view["progress"]["step"] > 0  # noqa: E731
    assert wait_until(lambda: any(map(drawn, long)), 90), stack.logs()
    time.sleep(1.5)  # a gauge of what waits is read at scrapes only
    for job in long:
        client.cancel(job)
    assert wait_until(client.all_over, 90), stack.logs()
    client.close_the_books()
    time.sleep(1)  # what a client hears of first, its worker counts a moment later
    over_s = time.time()
    newest = 'min(timestamp(up{job=~"darkroom-.*"}))'
    assert wait_until(lambda: (stack.prometheus.value(newest) or 0) > over_s + 1, 30), stack.logs()
    return client.ledger


def test_the_load_was_of_every_kind(run: Run) -> None:
    ended = run.ledger.ended
    assert (ended[GOOD, "completed"], ended[BROKEN, "failed"], ended[GOOD, "canceled"]) == (16, 4, 12)
    assert run.ledger.images == 31


def test_counts_are_the_clients_own(run: Run) -> None:
    ledger, value = run.ledger, run.stack.prometheus.value
    for model, jobs in ledger.submitted.items():
        assert value(f'sum(darkroom_jobs_submitted_total{{model="{model}"}})') == jobs
    assert value('darkroom_http_requests_total{route="/v1/images",method="POST",code="202"}') == len(
        list(ledger.submitted.elements())
    )
    assert value('darkroom_http_requests_total{route="/v1/images/{job_id}/cancel",code="200"}') == ledger.cancels
    for (model, status), jobs in ledger.ended.items():
        assert value(f'sum(darkroom_jobs_finished_total{{model="{model}", status="{status}"}})') == jobs
    assert value("sum(darkroom_jobs_finished_total)") == sum(ledger.ended.values())
    assert value('sum(darkroom_jobs_finished_total{code="invalid_output"})') == ledger.ended[BROKEN, "failed"]
    assert value("sum(darkroom_images_generated_total)") == ledger.images
    assert value("sum(darkroom_pixels_generated_total)") == ledger.pixels
    assert value("sum(darkroom_image_steps_count)") == ledger.images
    assert value("sum(darkroom_image_steps_sum)") == ledger.steps
    assert value("sum(darkroom_denoise_steps_total) - sum(darkroom_wasted_steps_total)") == ledger.steps
    assert value("sum(darkroom_job_e2e_seconds_count)") == ledger.ended[GOOD, "completed"]
    assert value("max(darkroom_dead_jobs)") == value("sum(darkroom_completions_fenced_total)") == 0


def expressions() -> dict[str, str]:
    board = json.loads(dashboard.PATH.read_text())
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in board["panels"]
        for target in panel.get("targets", [])
    } | {rule.name: rule.expr for rule in all_rules() if not rule.alert}


def metrics_of(expr: str) -> set[str]:
    """What an expression reads, through recorded series."""
    recorded = {rule.name: rule.expr for rule in all_rules()}
    found: set[str] = set()
    for name in reads(expr).metrics:
        found |= metrics_of(recorded[name]) if name in recorded else {name}
    return found


@pytest.mark.parametrize("where", expressions())
def test_each_panel_and_each_recorded_series_has_data(run: Run, where: str) -> None:
    expr = expressions()[where]
    excused = metrics_of(expr) & (ONLY_WITH_A_GPU - {"darkroom_cost_usd_total"} | DOES_NOT_HAPPEN)
    asked = expr.replace("$__rate_interval", "5s").replace("$__range", "60s").replace("$model", ".*")
    series = run.stack.prometheus.series(asked, over_s=run.seconds)
    # What nobody measures here must be a question that Prometheus understands all the same.
    assert series or excused
    assert excused or any(value not in ("NaN", "+Inf") for one in series for _, value in one["values"])


def test_every_rule_is_evaluated_without_an_error(run: Run) -> None:
    rules = run.stack.prometheus.rules()
    assert {rule["name"] for rule in rules} == {rule.name for rule in all_rules()}
    assert {(rule["name"], rule.get("lastError", "")) for rule in rules if rule["health"] != "ok"} == set()
    assert [rule["name"] for rule in rules if rule.get("state") == "firing"] == []


def test_the_choice_of_models_has_them(run: Run) -> None:
    assert set(run.stack.prometheus.label_values("darkroom_workers_live", "model")) == {GOOD, BROKEN}
