"""The leash: its command never outlives whoever holds the other end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.processes import alive, all_gone

LEASH = [sys.executable, "-m", "app.cli.leash"]

# Each says its pid once it is ready to be told something.
POLITE = """
import os, signal, sys, time
def told(number, frame):
    print("told", signal.Signals(number).name, flush=True)
    sys.exit(7)
signal.signal(signal.SIGTERM, told)
print(os.getpid(), flush=True)
time.sleep(60)
"""
STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), flush=True)
time.sleep(60)
"""
LEAVES_A_GRANDCHILD = """
import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid, flush=True)
"""
# Holds a leash as the stack does, and says the leash's pid on its error output.
HOLDER = """
import subprocess, sys, time
leash = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)
print(leash.pid, file=sys.stderr, flush=True)
time.sleep(60)
"""


@contextmanager
def held(script: str, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A script on a leash, and the pid that the script says."""
    command = [*LEASH, *options, sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as leash:
        assert leash.stdout is not None
        try:
            yield leash, int(leash.stdout.readline())
        finally:
            leash.kill()  # where a test failed; what it held sleeps for a minute at most


def run(*command: str) -> subprocess.CompletedProcess[str]:
    with subprocess.Popen([*LEASH, *command], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as leash:
        assert leash.stderr is not None
        stderr = leash.stderr.read()
        leash.wait(10)  # its standard input stays open until it has ended
    return subprocess.CompletedProcess(command, leash.returncode, "", stderr)


def test_the_commands_exit_code_is_passed_on() -> None:
    assert run(sys.executable, "-c", "raise SystemExit(5)").returncode == 5
    assert run(sys.executable, "-c", "import os; os.kill(os.getpid(), 9)").returncode == 128 + 9


def test_a_command_that_does_not_exist_is_named() -> None:
    done = run("/no/such/program")
    assert done.returncode == 127
    assert "/no/such/program: No such file or directory" in done.stderr


def test_end_of_input_asks_the_command_to_end() -> None:
    with held(POLITE) as (leash, pid):
        output, _ = leash.communicate(timeout=5)
        assert output == "told SIGTERM\n"
        assert leash.returncode == 7
        assert not alive(pid)


def test_sigterm_is_forwarded() -> None:
    with held(POLITE) as (leash, _):
        leash.terminate()
        assert leash.wait(5) == 7
        assert leash.stdout is not None
        assert leash.stdout.read() == "told SIGTERM\n"


def test_a_stubborn_command_is_killed_after_the_grace() -> None:
    with held(STUBBORN, "--grace", "0.5") as (leash, pid):
        asked_s = time.monotonic()
        leash.communicate(timeout=5)
        assert 0.5 <= time.monotonic() - asked_s < 2
        assert leash.returncode == 128 + signal.SIGKILL
        assert not alive(pid)


def test_a_second_byte_kills_at_once() -> None:
    with held(STUBBORN, "--grace", "60") as (leash, pid):
        assert leash.stdin is not None
        leash.stdin.write(".")
        leash.stdin.flush()
        time.sleep(0.2)
        assert alive(pid)
        leash.stdin.write(".")
        leash.stdin.flush()
        assert leash.wait(5) == 128 + signal.SIGKILL


def test_what_the_command_leaves_behind_ends_with_it() -> None:
    with held(LEAVES_A_GRANDCHILD) as (leash, grandchild):
        leash.wait(5)
        assert all_gone([grandchild], 5)


def test_the_command_has_a_session_of_its_own_and_no_hold_on_the_pipe() -> None:
    script = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with held(script) as (_, pid):
        assert os.getsid(pid) == pid
        if sys.platform == "linux":
            assert Path(f"/proc/{pid}/fd/0").readlink() == Path(os.devnull)


@pytest.mark.parametrize("script", [POLITE, STUBBORN])
def test_the_command_ends_when_the_holder_is_killed(script: str) -> None:
    holder_command = [sys.executable, "-c", HOLDER, *LEASH, "--grace", "0.5", sys.executable, "-c", script]
    with subprocess.Popen(holder_command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stderr is not None
        pids = [int(holder.stderr.readline()), int(holder.stdout.readline())]
        holder.kill()
        assert all_gone(pids, 5)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child together with its parent")
def test_the_command_ends_when_the_leash_is_killed() -> None:
    with held(STUBBORN) as (leash, pid):
        leash.kill()
        assert all_gone([pid], 5)


def test_sigterm_while_the_command_is_being_started_is_not_lost() -> None:
    # At any moment of its start: the leash ends, and what it started too.
    for delay_s in (0.0, 0.02, 0.04, 0.06, 0.08, 0.1):
        script = "import time; time.sleep(60)"
        with subprocess.Popen([*LEASH, sys.executable, "-c", script], stdin=subprocess.PIPE) as leash:
            time.sleep(delay_s)
            leash.terminate()
            leash.wait(5)
