"""One supervised process: whatever ends it, it starts again a short random time later, as a new life."""

import ctypes
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[3]
RESTART_AFTER_S = (0.1, 1.0)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True, slots=True)
class Launch:
    """How one life is started."""

    command: Sequence[str]
    environment: Mapping[str, str]


class Span(NamedTuple):
    """Times are time.time()'s."""

    from_s: float
    to_s: float

    def common(self, other: "Span") -> "Span | None":
        both = Span(max(self.from_s, other.from_s), min(self.to_s, other.to_s))
        return both if both.from_s < both.to_s else None


class Process:
    """`launch` is given the name of the life that begins, NAME.1, NAME.2 and so on; its log is LIFE.log.

    well: life -> when it ran, and nothing had been done to it. unexpected: ends that nobody brought about.
    """

    def __init__(self, name: str, launch: Callable[[str], Launch], logs: Path, rng: random.Random) -> None:
        self.name = name
        self.frozen = False
        self.leaving = False
        self.unexpected: list[str] = []
        self.well: defaultdict[str, list[Span]] = defaultdict(list)
        self._well_since_s: float | None = None
        self._launch = launch
        self._logs = logs
        self._rng = rng
        self._lives = 0
        self._started_s = 0.0
        self._start_at_s: float | None = 0.0
        self._away_s = RESTART_AFTER_S
        self._killed = False
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def life(self) -> str:
        return f"{self.name}.{self._lives}"

    @property
    def running(self) -> bool:
        return self._child is not None

    @property
    def steady(self) -> bool:
        """It runs, and nothing was done to it."""
        return self.running and not (self.frozen or self.leaving or self._killed)

    @property
    def age_s(self) -> float:
        return time.monotonic() - self._started_s

    def tend(self) -> None:
        """Notice its end, and start it when it is due."""
        now_s = time.monotonic()
        if self._child is not None and (code := self._child.poll()) is not None:
            if not (self._killed or (self.leaving and code == 0)):
                self.unexpected.append(f"{self.life} ended by itself, with exit code {code}")
            self._unwell()
            self._child, self._start_at_s = None, now_s + self._rng.uniform(*self._away_s)
        if self._child is None and self._start_at_s is not None and now_s >= self._start_at_s:
            self._start()

    def kill(self, away_s: tuple[float, float] = RESTART_AFTER_S) -> None:
        """End it as a power cut does. away_s: least and most until it starts again."""
        self._unwell()
        self._killed, self._away_s = True, away_s
        self._send(signal.SIGKILL)

    def drain(self) -> None:
        """Ask it to end."""
        self._unwell()
        self.leaving = True
        self._send(signal.SIGTERM)

    def freeze(self) -> None:
        self._unwell()
        self.frozen = True
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        self.frozen = False
        self._send(signal.SIGCONT)
        self._well_since_s = time.time()

    def close(self) -> None:
        """End it for good."""
        self._unwell()
        self._start_at_s = None
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def _start(self) -> None:
        self._lives += 1
        self._started_s, self._start_at_s, self._away_s = time.monotonic(), None, RESTART_AFTER_S
        self._killed = self.leaving = self.frozen = False
        self._well_since_s = time.time()
        launch = self._launch(self.life)
        with (self._logs / f"{self.life}.log").open("wb") as log:
            self._child = subprocess.Popen(
                launch.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=launch.environment,
                cwd=ROOT,
                start_new_session=True,
                preexec_fn=_end_with_this_process() if sys.platform == "linux" else None,
            )

    def _unwell(self) -> None:
        if self._well_since_s is not None:
            self.well[self.life].append(Span(self._well_since_s, time.time()))
            self._well_since_s = None

    def _send(self, signum: signal.Signals) -> None:
        if self._child is not None:
            self._child.send_signal(signum)


def _end_with_this_process() -> Callable[[], None]:
    """Make what a child runs first, so that nothing is left running when the whole run is killed. Linux only."""
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return tie
