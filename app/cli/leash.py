"""`python -m app.cli.leash CMD ...`: run CMD so that it ends when the parent of the leash ends, however that happens.

The leash's standard input is a pipe whose write end only the parent has, so the kernel itself says when the parent is
gone, kill -9 included. End of file: SIGTERM to CMD, and SIGKILL after the grace. A byte says the same, a second byte
means SIGKILL at once. CMD inherits every file descriptor the leash was given except that pipe, and leads a session of
its own, so that a Ctrl-C meant for the parent does not reach it. SIGTERM, SIGINT and SIGHUP are passed on.

Exits with CMD's code, with 128 + N when signal N ended it, with 127 when it cannot be run. Standard library only: it is
also run by its path, without this package or its dependencies.
"""

import argparse
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

_TETHER_FD = 0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="leash", description="Run CMD for as long as standard input stays open.")
    parser.add_argument("--grace", type=float, default=10.0, metavar="SECONDS", help="from SIGTERM to SIGKILL")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD ...")
    options = parser.parse_args(arguments)
    if not options.command:
        parser.error("no command given")
    # Signals become bytes in this pipe, so that one that arrives while CMD is being started is not lost.
    signals_fd, wakeup_fd = os.pipe()
    os.set_blocking(wakeup_fd, False)
    signal.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False)
    for signum in (signal.SIGCHLD, *_FORWARDED):
        signal.signal(signum, _noted)
    try:
        child = subprocess.Popen(
            options.command,
            stdin=subprocess.DEVNULL,
            close_fds=False,
            start_new_session=True,
            preexec_fn=_tie_to_this_process() if sys.platform == "linux" else None,
        )
    except OSError as error:
        print(f"leash: cannot run {options.command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    code = _hold(child, signals_fd, options.grace)
    _kill_group(child)  # whatever it started and left behind
    return code if code >= 0 else 128 - code


def _hold(child: subprocess.Popen[bytes], signals_fd: int, grace_s: float) -> int:
    watched = [_TETHER_FD, signals_fd]
    kill_at_s: float | None = None
    while (code := child.poll()) is None:
        left_s = None if kill_at_s is None else kill_at_s - time.monotonic()
        if left_s is not None and left_s <= 0:
            _kill_group(child)
            return child.wait()
        readable, _, _ = select.select(watched, [], [], left_s)
        if signals_fd in readable:
            for number in os.read(signals_fd, 64):
                if number in _FORWARDED:
                    child.send_signal(number)
        if _TETHER_FD in readable:
            parent_lives = bool(os.read(_TETHER_FD, 1))
            if not parent_lives:
                watched = [signals_fd]
            if kill_at_s is None:
                child.terminate()
                kill_at_s = time.monotonic() + grace_s
            elif parent_lives:
                kill_at_s = time.monotonic()
    return code


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):  # nobody is left; macOS says EPERM while a zombie leads it
        os.killpg(child.pid, signal.SIGKILL)


def _tie_to_this_process() -> Callable[[], None]:
    """Make what a new child runs first, so that the kernel kills it when the leash is killed. Linux only."""
    prctl = ctypes.CDLL(None).prctl
    leash_pid = os.getpid()

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != leash_pid:  # too late: it went away before
            os._exit(1)

    return tie


def _noted(signum: int, frame: object) -> None:
    """Do nothing here: the number is already in the wakeup pipe."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
