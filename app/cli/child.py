"""One process of the stack, on a leash: it cannot outlive this process."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from app.cli import leash

_LAST_LINES = 15
_LAST_BYTES = 16_384


class Child:
    """Start, watch and end one command. Its output is appended to a log."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        *,
        grace_s: float,
        keep_fds: Sequence[int] = (),
    ) -> None:
        """keep_fds: descriptors that the command, and so everything that keeps it alive, holds open."""
        self.name = name
        self.log = log
        self._command = tuple(command)
        self._environment = dict(environment)
        self._grace_s = grace_s
        self._keep_fds = tuple(keep_fds)
        self._leash: subprocess.Popen[bytes] | None = None
        self._tether_fd = -1
        self._log_offset = 0

    def start(self) -> None:
        # Both ends are close-on-exec and Popen closes what it does not pass: no sibling gets this write end, or the
        # leash would wait for the sibling too.
        held_fd, self._tether_fd = os.pipe()
        try:
            with self.log.open("ab") as log:
                self._log_offset = log.tell()
                self._leash = subprocess.Popen(
                    # Isolated and without site-packages: the leash is the standard library's alone, and starts fast.
                    [sys.executable, "-I", "-S", leash.__file__, "--grace", str(self._grace_s), *self._command],
                    stdin=held_fd,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._environment,
                    start_new_session=True,
                    pass_fds=self._keep_fds,
                )
        finally:
            os.close(held_fd)

    @property
    def exit_code(self) -> int | None:
        """None while it runs; 128 + N after signal N."""
        code = self._leash.poll() if self._leash else None
        if code is not None:
            self._untie()
        return code

    def end(self) -> None:
        """Ask it to end, without waiting; it has its grace."""
        self._tell(b".")

    def kill(self) -> None:
        """End it at once, without waiting."""
        self._tell(b"..")

    def wait(self) -> None:
        """Wait until it has ended; after `end` or `kill` this takes its grace at most."""
        if self._leash is not None:
            self._leash.wait()
        self._untie()

    def last_lines(self) -> list[str]:
        """The last lines that it logged since it was started."""
        with self.log.open("rb") as log:
            log.seek(max(self._log_offset, log.seek(0, os.SEEK_END) - _LAST_BYTES))
            return log.read().decode(errors="replace").splitlines()[-_LAST_LINES:]

    def _tell(self, words: bytes) -> None:
        if self._tether_fd >= 0:
            with suppress(BrokenPipeError):  # it has ended already
                os.write(self._tether_fd, words)

    def _untie(self) -> None:
        if self._tether_fd >= 0:
            os.close(self._tether_fd)
            self._tether_fd = -1
