"""`darkroom up`, from the outside: real processes, a real Valkey, real pictures, and nothing left behind."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from app.cli import demo
from app.cli.demo_requests import DemoRequest
from app.cli.errors import DemoError
from tests.processes import all_gone, wait_until
from tests.system.up import DARKROOM, MODEL, ROOT, Up, run


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    # A folder's name may hold what a URL gives a meaning.
    running = Up(tmp_path_factory.mktemp("up") / "data #1 50%20?")
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.end()


def test_the_ready_line_says_where_and_what(up: Up) -> None:
    assert re.fullmatch(
        rf"Darkroom is ready: http://127\.0\.0\.1:\d+  \(models: {MODEL}, data: {re.escape(str(up.data_dir))}\)",
        up.ready_line,
    )
    assert httpx.get(f"{up.url}/readyz").json() == {"status": "ready", "redis": "ok", "workers": 1}
    assert sorted(path.name for path in (up.data_dir / "logs").iterdir()) == [
        "gateway.log",
        "valkey.log",
        "worker-1.log",
    ]


def test_generate_saves_a_picture(up: Up, tmp_path: Path) -> None:
    output = tmp_path / "ring.png"
    done = run(
        "generate",
        "a small red ring",
        "--steps",
        "2",
        "--seed",
        "7",
        "--size",
        "96x64",
        "-o",
        str(output),
        "--url",
        up.url,
    )
    assert (done.returncode, done.stdout) == (0, f"{output}  ({MODEL}, 96x64, 2 steps, seed 7)\n"), done.stderr
    assert output.read_bytes().startswith(b"\x89PNG")


def test_generate_tells_of_warnings(up: Up, tmp_path: Path) -> None:
    output = tmp_path / "ring.png"
    done = run("generate", "a ring", "--steps", "9", "--size", "64x64", "-o", str(output), "--url", up.url)
    assert done.returncode == 0, done.stderr
    assert f"Note: 9 steps are more than {MODEL} is known to gain from" in done.stderr
    assert "Try num_inference_steps 4." in " ".join(done.stderr.split())


def test_generate_passes_on_what_the_server_says(up: Up) -> None:
    done = run("generate", "a small red ring", "--size", "100x64", "--url", up.url)
    assert done.returncode == 1
    assert "answered 422: width 100 is not a multiple of 16; try 96 or 112" in done.stderr


def test_ctrl_c_on_generate_cancels_the_job(up: Up, tmp_path: Path) -> None:
    def newest() -> dict[str, str]:
        jobs: list[dict[str, str]] = httpx.get(f"{up.url}/v1/images?limit=1").json()["data"]
        return jobs[0] if jobs else {"id": "", "status": ""}

    before = newest()["id"]
    output = tmp_path / "ring.png"
    generating = subprocess.Popen(
        [*DARKROOM, "generate", "a ring", "--steps", "100", "--size", "512x512", "-o", str(output), "--url", up.url],
        cwd=ROOT,
        # Tests that run in the background may have been told to ignore it, and a child inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert wait_until(lambda: newest()["id"] != before and newest()["status"] == "in_progress", 15)
        generating.send_signal(signal.SIGINT)
        assert generating.wait(10) == 130
    finally:
        generating.kill()
        generating.wait()
    assert wait_until(lambda: newest()["status"] == "canceled", 10)
    assert not output.exists()


def test_the_demo_fails_when_a_request_does(up: Up, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = DemoRequest(MODEL, "a small red ring", 2, 0.0, 1)
    too_many_steps = replace(good, num_inference_steps=1000)
    monkeypatch.setattr(demo, "DEMO_REQUESTS", (good, too_many_steps))
    monkeypatch.setattr(demo, "Stack", lambda options, say: nullcontext(up))
    with pytest.raises(DemoError, match=r"(?s)^1 of 2 requests went wrong:.*1000 steps: .* answered 422"):
        demo.run_demo(tmp_path, print)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"01-{MODEL}-2.png", "contact-sheet.png"]


def test_a_second_up_on_one_data_folder_is_refused(up: Up) -> None:
    done = run("up", "--port", "0", "--data-dir", str(up.data_dir))
    assert done.returncode == 1
    assert f"The data folder {up.data_dir} is in use by another Darkroom" in done.stderr
    assert httpx.get(f"{up.url}/readyz").is_success


def test_a_killed_valkey_comes_back_with_every_accepted_job(up: Up) -> None:
    jobs = [up.submit(seed, steps=20) for seed in range(3)]
    os.kill(up.pid_of("valkey-server"), signal.SIGKILL)
    up.line_with("valkey was ended by SIGKILL; starting it again in 0.5 s.", within_s=5)
    up.finish(jobs, within_s=20)


def test_a_killed_worker_is_replaced_and_its_jobs_are_done(up: Up) -> None:
    jobs = [up.submit(seed, steps=20) for seed in range(10, 13)]
    os.kill(up.pid_of("-m workers"), signal.SIGKILL)
    up.line_with("worker-1 was ended by SIGKILL; starting it again in 0.5 s.", within_s=5)
    up.finish([*jobs, up.submit(13)], within_s=45)


def test_a_killed_gateway_is_replaced(up: Up) -> None:
    os.kill(up.pid_of("-m app"), signal.SIGKILL)
    up.line_with("gateway was ended by SIGKILL; starting it again in 0.5 s.", within_s=5)

    def answers() -> bool:
        try:
            return httpx.get(f"{up.url}/readyz").is_success
        except httpx.TransportError:
            return False

    assert wait_until(answers, 15)


def test_ctrl_c_stops_everything_quietly(up: Up) -> None:
    # The last test of this stack.
    pids = list(up.family())
    assert len(pids) == 6
    up.ctrl_c()
    assert up.wait(20) == 0
    assert all_gone(pids, 0)
    assert up.rest() == []
    assert "worker_stopped" in (up.data_dir / "logs" / "worker-1.log").read_text().splitlines()[-1]
    assert not (up.data_dir / "valkey.sock").exists()
