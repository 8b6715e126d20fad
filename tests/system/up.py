"""A real `darkroom up` for tests."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

import httpx
import pytest

from tests.processes import family, wait_until

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

    def wait_until_ready(self, within_s: float = 60) -> None:
        self.ready_line = self.line_with("Darkroom is ready", within_s)
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


def run(*arguments: str, within_s: float = 30) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DARKROOM, *arguments], capture_output=True, text=True, timeout=within_s, check=False, cwd=ROOT
    )
