"""Children and the crew: logs, exit codes, order, restarts, and no hold of one child on another."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app.cli.child import Child
from app.cli.crew import Crew
from app.cli.errors import ChildError
from tests.processes import family, wait_until

MakeChild = Callable[..., Child]

SLEEPER = "import time; time.sleep(60)"
# Says when it ends, so that the order shows in one file.
FAREWELL = """
import pathlib, signal, sys, time
def told(*_):
    with open(sys.argv[1], "a") as file:
        file.write(sys.argv[2] + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, told)
print("ready", flush=True)
time.sleep(60)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def make_child(tmp_path: Path) -> MakeChild:
    def make(name: str, script: str, *arguments: str, grace_s: float = 5.0) -> Child:
        command = [sys.executable, "-c", script, *arguments]
        return Child(name, command, os.environ, tmp_path / f"{name}.log", grace_s=grace_s)

    return make


def test_a_childs_output_and_exit_code_are_kept(make_child: MakeChild) -> None:
    script = "import sys; print('to output', flush=True); print('to error', file=sys.stderr); sys.exit(3)"
    for _ in range(2):
        child = make_child("loud", script)
        child.start()
        child.wait()
        assert child.exit_code == 3
        assert child.last_lines() == ["to output", "to error"]
    assert len(child.log.read_text().splitlines()) == 4


def test_a_child_ends_although_a_sibling_lives(make_child: MakeChild) -> None:
    first, second = make_child("first", SLEEPER), make_child("second", SLEEPER)
    first.start()
    second.start()
    try:
        # As it is when this process dies: the end of the pipe, and nothing said.
        first._untie()
        assert wait_until(lambda: first.exit_code is not None, 5)
        assert second.exit_code is None
    finally:
        second.kill()
        second.wait()


def test_the_crew_stops_the_last_stage_first(make_child: MakeChild, tmp_path: Path) -> None:
    told = tmp_path / "told"
    crew = Crew()
    children = [make_child(name, FAREWELL, str(told), name) for name in ("first", "second", "third")]
    for child in children:
        crew.start(child)
    assert wait_until(lambda: all(child.last_lines() == ["ready"] for child in children), 5)
    crew.stop()
    assert told.read_text().split() == ["third", "second", "first"]
    assert [child.exit_code for child in children] == [0, 0, 0]


def test_an_interrupt_while_stopping_kills_at_once(make_child: MakeChild, monkeypatch: pytest.MonkeyPatch) -> None:
    crew = Crew()
    children = [make_child(name, STUBBORN, grace_s=60) for name in ("first", "second")]
    for child in children:
        crew.start(child)
    assert wait_until(lambda: all(child.last_lines() == ["ready"] for child in children), 5)
    wait = Child.wait

    def interrupted(child: Child) -> None:
        monkeypatch.setattr(Child, "wait", wait)
        raise KeyboardInterrupt

    monkeypatch.setattr(Child, "wait", interrupted)
    asked_s = time.monotonic()
    crew.stop()
    assert time.monotonic() - asked_s < 5
    assert [child.exit_code for child in children] == [137, 137]


def test_a_child_that_ends_too_early_is_named_with_its_last_words(make_child: MakeChild) -> None:
    crew = Crew()
    crew.start(make_child("painter", "raise SystemExit('no paint')"))

    def nothing_wrong() -> bool:
        crew.check()
        return False

    with pytest.raises(ChildError, match=r"(?s)^painter ended with exit code 1 before .*painter\.log.*no paint"):
        wait_until(nothing_wrong, 5)


def test_a_child_that_keeps_dying_is_given_up(make_child: MakeChild) -> None:
    crew = Crew(first_delay_s=0.01)
    said: list[str] = []
    crew.start(make_child("painter", "raise SystemExit('no paint')"))
    with pytest.raises(ChildError, match=r"(?s)^painter ended 5 times within 60 seconds.*no paint"):
        crew.supervise(said.append)
    assert len(said) == 4
    assert said[0].startswith("painter ended with exit code 1; starting it again in 0.01 s.")
    assert not any("no paint" in command for command in family(os.getpid()).values())
