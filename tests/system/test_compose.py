"""The images and the Compose stack, on a real Docker Engine. Slow: make test-docker

It builds, publishes a port on loopback and removes what it started, images excepted. Grafana is left out.
"""

import hashlib
import logging
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.access.key_cache import REMEMBER_S
from tests.processes import wait_until
from tests.system.compose import ROOT, TARGETS, Stack, build, docker, inspect
from workers.tiny.check import check
from workers.tiny.parsing import parse_prompt

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]

TAG = "test"
PROMPT = "a small red ring on the left on a blue background"

log = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def images() -> dict[str, str]:
    """Target -> image, both built."""
    for target, name in TARGETS.items():
        seconds = build(target, TAG)
        log.info("%s: built in %.1f s, %.0f MB", target, seconds, inspect(f"{name}:{TAG}")["Size"] / 1e6)
    return {target: f"{name}:{TAG}" for target, name in TARGETS.items()}


@pytest.fixture(scope="module")
def stack(images: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env_file = tmp_path_factory.mktemp("compose") / "empty.env"
    env_file.touch()
    running = Stack(TAG, port, env_file)
    try:
        running.up()
        yield running
    finally:
        running.down()


def ended(image: str, *command: str) -> int:
    return subprocess.run(["docker", "run", "--rm", "--read-only", image, *command], check=False).returncode


def layers(image: str) -> list[str]:
    found: list[str] = inspect(image)["RootFS"]["Layers"]
    return found


@pytest.mark.parametrize(
    ("target", "there", "missing"),
    [("gateway", "fastapi", ["torch", "diffusers", "workers"]), ("worker", "torch", ["fastapi", "uvicorn"])],
)
def test_an_image_holds_what_it_runs_and_no_tools(
    images: dict[str, str], target: str, there: str, missing: list[str]
) -> None:
    image = images[target]
    assert ended(image, "python", "-c", f"import {there}, app.healthcheck") == 0
    for module in [*missing, "pip", "hatchling", "pytest"]:
        code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is not None)"
        assert ended(image, "python", "-c", code) == 0, module
    for program in ["gcc", "make", "git", "curl"]:
        assert ended(image, "sh", "-c", f"! command -v {program}") == 0, program
    assert docker("run", "--rm", image, "id", "-u").strip() == "10001"
    assert ended(image, "sh", "-c", "! test -w /opt/code/app && ! test -w /opt/darkroom") == 0


@pytest.mark.parametrize("target", list(TARGETS))
def test_a_line_of_code_costs_one_layer(images: dict[str, str], target: str, tmp_path: Path) -> None:
    context = tmp_path / "context"
    shutil.copytree(ROOT, context, symlinks=True, ignore=shutil.ignore_patterns(".venv", ".git", "build", "tests"))
    with (context / "app" / "healthcheck.py").open("a") as file:
        file.write(f"# {time.time_ns()}\n")
    seconds = build(target, f"{TAG}-changed", context)
    log.info("%s: built again after a change of one line in %.1f s", target, seconds)
    changed = f"{TARGETS[target]}:{TAG}-changed"
    try:
        assert layers(changed)[:-1] == layers(images[target])[:-1]
        assert layers(changed)[-1] != layers(images[target])[-1]
    finally:
        docker("rmi", changed)


@pytest.mark.parametrize("target", list(TARGETS))
def test_sigterm_ends_it_while_it_still_imports(images: dict[str, str], target: str) -> None:
    container = docker("run", "--detach", "--read-only", "--tmpfs", "/tmp", images[target]).strip()  # noqa: S108
    try:
        docker("stop", "--time", "10", container)
        assert inspect(container)["State"]["ExitCode"] != 137  # killed, since it did not listen
    finally:
        docker("rm", "--force", container)


def test_the_engine_heeds_every_limit(stack: Stack) -> None:
    for service in stack.services:
        container = inspect(stack.container(service))
        host = container["HostConfig"]
        assert host["ReadonlyRootfs"], service
        assert host["CapDrop"] == ["ALL"], service
        assert host["SecurityOpt"] == ["no-new-privileges:true"], service
        assert host["RestartPolicy"]["Name"] == "unless-stopped", service
        assert min(host["Memory"], host["NanoCpus"], host["PidsLimit"]) > 0, service
        published = [ports for ports in container["NetworkSettings"]["Ports"].values() if ports]
        if service == "gateway":
            assert [port["HostIp"] for ports in published for port in ports] == ["127.0.0.1"]
        else:
            assert not published, service
            for network in container["NetworkSettings"]["Networks"].values():
                assert inspect(network["NetworkID"])["Internal"], service


def test_every_service_becomes_healthy(stack: Stack) -> None:
    def health() -> dict[str, str]:
        return {service: stack.state(service)["Health"]["Status"] for service in stack.services}

    assert wait_until(lambda: set(health().values()) == {"healthy"}, 90), health()


def test_a_prompt_becomes_a_picture_and_numbers(stack: Stack, tmp_path: Path) -> None:
    jobs = [
        stack.submit(prompt=PROMPT, model="tiny-sd3", seed=42, num_inference_steps=20),
        stack.submit(prompt=PROMPT, model="tiny-flux-dev", seed=1, num_inference_steps=20, n=3),
        stack.submit(prompt=PROMPT, model="tiny-flux-schnell", seed=1, num_inference_steps=4, n=2),
    ]
    assert all(job.startswith(stack.url) for job in jobs)
    stack.finished(jobs, 180)

    picture = tmp_path / "picture.png"
    picture.write_bytes(httpx.get(f"{jobs[0]}/content?index=0").content)
    score, _ = check(picture, parse_prompt(PROMPT))
    assert score["joint"]

    # On a new stack Prometheus has counted exactly what this client got.
    expected = {
        "sum(darkroom_images_generated_total)": 6,
        "sum(darkroom_image_steps_sum)": 20 + 3 * 20 + 2 * 4,
        'sum(darkroom_jobs_finished_total{status="completed"})': 3,
    }
    assert wait_until(lambda: {query: stack.query(query) for query in expected} == expected, 30), {
        query: stack.query(query) for query in expected
    }
    for query, value in expected.items():
        log.info("%s = %s, and the client counts %s", query, stack.query(query), value)


def test_nothing_is_lost_when_redis_and_the_worker_go_down(stack: Stack) -> None:
    def done() -> int:
        return sum(stack.read(job).get("status") == "completed" for job in jobs)

    def submit(count: int) -> None:
        jobs.extend(
            stack.submit(prompt=PROMPT, model="tiny-sd3", seed=seed, num_inference_steps=20)
            for seed in range(len(jobs), len(jobs) + count)
        )

    jobs: list[str] = []
    submit(12)
    assert wait_until(lambda: done() > 0, 180)
    log.info("%s of %s done: restarting redis", done(), len(jobs))
    stack.compose("restart", "redis")
    submit(6)
    log.info("%s of %s done: restarting the worker", done(), len(jobs))
    stack.compose("restart", "worker")
    assert stack.state("worker")["Status"] == "running"
    submit(6)
    assert wait_until(lambda: stack.workers() == 1, 180)
    log.info("%s of %s done: killing the worker and redis with signal 9", done(), len(jobs))
    assert done() < len(jobs)
    restarts = inspect(stack.container("worker"))["RestartCount"]
    # From inside, as a crash: what `docker kill` ends is not started again by the engine.
    subprocess.run(["docker", "exec", stack.container("worker"), "sh", "-c", "kill -9 -1"], check=False)
    redis = stack.container("redis")
    docker("kill", redis)
    docker("start", redis)
    submit(6)

    views = stack.finished(jobs, 400)
    log.info("%s of %s done", done(), len(jobs))
    for job, view in zip(jobs, views, strict=True):
        content = httpx.get(f"{job}/content?index=0").content
        assert hashlib.sha256(content).hexdigest() == view["data"][0]["sha256"]
    assert inspect(stack.container("worker"))["RestartCount"] == restarts + 1
    assert wait_until(lambda: stack.query("sum(darkroom_queue_depth)") == 0, 30)
    assert wait_until(lambda: stack.query("sum(up)") == 2, 30)


def test_a_worker_that_is_stopped_says_goodbye(stack: Stack) -> None:
    container = stack.container("worker")
    job = stack.submit(prompt=PROMPT, model="tiny-sd3", seed=1, num_inference_steps=50, n=4)
    assert wait_until(lambda: stack.read(job).get("status") == "in_progress", 180)
    stack.compose("stop", "worker")
    assert inspect(container)["State"]["ExitCode"] == 0
    assert stack.read(job)["status"] == "queued"
    assert stack.workers() == 0
    stack.compose("start", "worker")
    stack.finished([job], 300)


def test_once_a_key_is_made_strangers_are_turned_away_and_prometheus_is_not(stack: Stack) -> None:
    """The last one: nothing makes the stack open again."""
    request = {"prompt": PROMPT, "model": "tiny-flux-schnell", "seed": 2, "num_inference_steps": 4}
    assert httpx.get(f"{stack.url}/metrics").status_code == 404
    key = stack.compose("exec", "-T", "gateway", "darkroom", "keys", "create", "--tenant", "alice").strip()
    assert wait_until(lambda: httpx.post(f"{stack.url}/v1/images", json={}).status_code == 401, 2 * REMEMBER_S)

    with httpx.Client(base_url=stack.url, headers={"Authorization": f"Bearer {key}"}) as alice:
        job = alice.post("/v1/images", json=request).raise_for_status().json()["urls"]["self"]
        assert wait_until(lambda: alice.get(job).json()["status"] == "completed", 180)
        view = alice.get(job).json()
    assert httpx.get(job).status_code == 401
    signed = httpx.get(view["data"][0]["url"]).raise_for_status()
    assert hashlib.sha256(signed.content).hexdigest() == view["data"][0]["sha256"]

    # Prometheus, without a key, has counted the two refusals that this client got.
    refused = 'sum(darkroom_http_requests_total{code="401"})'
    assert wait_until(lambda: stack.query(refused) == 2, 30), stack.query(refused)
    log.info("%s = %s, and the client counts 2", refused, stack.query(refused))
