"""`darkroom up`, from the outside: real processes, a real Valkey, real pictures, and nothing left behind."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

import httpx
import pytest
import redis

from app.cli import demo
from app.cli.data_dir import DataDir
from app.cli.demo_requests import DemoRequest
from app.cli.errors import DataDirError, DemoError
from app.cli.stack import Stack, StackOptions
from tests.processes import all_gone, family, wait_until

DARKROOM = [sys.executable, "-m", "app.cli.main"]
MODEL = "tiny-flux-schnell"
ROOT = Path(__file__).parents[2]


class Up:
    """A running `darkroom up`."""

    def __init__(self, data_dir: Path, *options: str) -> None:
        self._process = subprocess.Popen(
            [*DARKROOM, "up", "--port", "0", "--data-dir", str(data_dir), "--model", MODEL, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            # A dead worker's jobs are taken back when its lease has ended.
            env={**os.environ, "DARKROOM_LEASE_S": "3"},
            # A process group of its own, as a shell gives it, for Ctrl-C.
            start_new_session=True,
        )
        self._lines: Queue[str] = Queue()
        self._reader = Thread(target=self._read)
        self._reader.start()
        self.data_dir = data_dir
        self.url = ""
        self.ready_line = ""

    def wait_until_ready(self) -> None:
        self.ready_line = self.line_with("Darkroom is ready", within_s=60)
        self.url = re.findall(r"http://\S+", self.ready_line)[0]

    def line_with(self, text: str, within_s: float) -> str:
        """Wait for a line of its output."""
        until_s = time.monotonic() + within_s
        seen: list[str] = []
        while text not in (seen or [""])[-1]:
            try:
                seen.append(self._lines.get(timeout=max(0, until_s - time.monotonic())))
            except Empty:
                pytest.fail(f"no {text!r} in {seen}")
        return seen[-1]

    def rest(self) -> list[str]:
        """What else it said, once it has ended."""
        self._reader.join(10)
        return list(self._lines.queue)

    def family(self) -> dict[int, str]:
        return family(self._process.pid)

    def pid_of(self, words: str) -> int:
        """The one process (not its leash) whose command line holds these words."""
        found = [pid for pid, command in self.family().items() if words in command and "leash.py" not in command]
        assert len(found) == 1, self.family()
        return found[0]

    def send(self, signum: signal.Signals) -> None:
        self._process.send_signal(signum)

    def ctrl_c(self) -> None:
        """Interrupt the whole foreground process group, as a terminal does."""
        os.killpg(self._process.pid, signal.SIGINT)

    def wait(self, within_s: float) -> int:
        return self._process.wait(within_s)

    def end(self) -> None:
        """Leave nothing behind, whatever a test has done."""
        if self._process.poll() is None:
            pids = [self._process.pid, *self.family()]
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
                self._process.wait()
        self._reader.join(10)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def submit(self, seed: int, steps: int = 4) -> str:
        """Ask for a picture and give the job's URL."""
        request = {"prompt": "a small red ring", "model": MODEL, "seed": seed, "num_inference_steps": steps}
        answer = httpx.post(f"{self.url}/v1/images", json=request)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["urls"]["self"])

    def finish(self, jobs: list[str], within_s: float) -> None:
        """Wait until all these jobs are completed, and have their pictures."""

        def status(job: str) -> str:
            answer = httpx.get(job)
            return str(answer.json()["status"]) if answer.is_success else f"{answer.status_code}: {answer.text}"

        assert wait_until(lambda: {status(job) for job in jobs} == {"completed"}, within_s), [status(j) for j in jobs]
        for job in jobs:
            assert httpx.get(f"{job}/content?index=0").content.startswith(b"\x89PNG")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    running = Up(tmp_path_factory.mktemp("up") / "data")
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.end()


def run(*arguments: str, within_s: float = 30) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DARKROOM, *arguments], capture_output=True, text=True, timeout=within_s, check=False, cwd=ROOT
    )


def test_the_ready_line_says_where_and_what(up: Up) -> None:
    assert re.fullmatch(
        rf"Darkroom is ready: http://127\.0\.0\.1:\d+  \(models: {MODEL}, data: {up.data_dir}\)", up.ready_line
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


def test_kill_9_leaves_nothing_behind(tmp_path: Path) -> None:
    up = Up(tmp_path / "data", "--workers", "2")
    try:
        up.wait_until_ready()
        pids = list(up.family())
        assert len(pids) == 8
        valkey = up.pid_of("valkey-server")
        os.kill(valkey, signal.SIGSTOP)
        up.send(signal.SIGKILL)
        up.wait(5)
        # As long as its Valkey may write, nobody else may use the folder.
        with pytest.raises(DataDirError, match="in use"):
            DataDir(up.data_dir).__enter__()
        os.kill(valkey, signal.SIGCONT)
        assert all_gone(pids, 16)
        with DataDir(up.data_dir):
            pass
    finally:
        up.end()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_can_be_stopped_while_it_starts(tmp_path: Path, signum: signal.Signals) -> None:
    up = Up(tmp_path / "data")
    try:
        assert wait_until(lambda: any("-m app" in command for command in up.family().values()), 10)
        pids = list(up.family())
        up.send(signum)
        assert up.wait(20) == 0
        assert all_gone(pids, 0)
        assert up.rest() == []
    finally:
        up.end()


def test_a_taken_port_is_named_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = run("up", "--port", str(port), "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 1
    assert f"Port {port} on 127.0.0.1 is in use" in done.stderr
    assert "--port" in done.stderr
    assert not (tmp_path / "data").exists()


def test_an_unknown_model_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    done = run("up", "--model", "tiny-flux", "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 2
    assert "unknown model 'tiny-flux'; known models: tiny-flux-schnell, tiny-flux-dev, tiny-sd3" in done.stderr
    assert not (tmp_path / "data").exists()


def test_what_the_gateway_refuses_reaches_the_user(tmp_path: Path) -> None:
    done = run("up", "--host", "0.0.0.0", "--port", "0", "--data-dir", str(tmp_path / "data"))  # noqa: S104
    assert done.returncode == 1
    assert "gateway ended with exit code 2 before it was ready" in done.stderr
    assert "refusing to listen on 0.0.0.0" in done.stderr


def test_a_redis_that_does_not_answer_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_REDIS_URL", f"unix://{tmp_path}/nobody.sock")
    done = run("up", "--port", "0", "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 1
    assert "DARKROOM_REDIS_URL does not answer" in done.stderr
    assert not (tmp_path / "data" / "logs" / "valkey.log").exists()


def test_a_given_redis_is_used_and_left_running(
    tmp_path: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_REDIS_URL", valkey_url)
    with Stack(StackOptions(data_dir=tmp_path, models=(MODEL,), port=0), say=print) as stack:
        commands = family(os.getpid()).values()
        assert httpx.get(f"{stack.url}/readyz").json()["workers"] == 1
        assert not any(f"--dir {tmp_path}" in command for command in commands)
    with redis.Redis.from_url(valkey_url) as client:
        assert client.ping()
    with pytest.raises(httpx.ConnectError):
        httpx.get(stack.url)
