"""The stack's processes together: started in stages, watched, and stopped in the opposite order."""

import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from app.cli.child import Child
from app.cli.errors import ChildError
from app.cli.restarts import FIRST_DELAY_S, MOST_DEATHS, WINDOW_S, Restarts

_WATCH_EVERY_S = 0.1


@dataclass(slots=True)
class _Post:
    """A child's place: filled again when it falls empty. Times are time.monotonic()'s."""

    child: Child
    restarts: Restarts
    started_s: float = 0.0
    start_at_s: float | None = None

    def start(self) -> None:
        self.started_s, self.start_at_s = time.monotonic(), None
        self.child.start()


class Crew:
    """Children in stages; those of one stage start and stop side by side."""

    def __init__(self, *, first_delay_s: float = FIRST_DELAY_S) -> None:
        """first_delay_s: from a child's first death to its restart."""
        self._first_delay_s = first_delay_s
        self._stages: list[list[_Post]] = []

    def start(self, *stage: Child) -> None:
        # Listed before they start: an interrupt in between must find them.
        self._stages.append([_Post(child, Restarts(self._first_delay_s)) for child in stage])
        for post in self._stages[-1]:
            post.start()

    def check(self) -> None:
        """Raise ChildError, with what it logged last, when one has ended."""
        for post in self._posts():
            code = post.child.exit_code
            if code is not None:
                raise ChildError(f"{post.child.name} {_how(code)} before it was ready. {_last_words(post.child)}")

    def supervise(self, say: Callable[[str], None]) -> None:
        """Start again whatever ends, until interrupted. Raises ChildError when one ends again and again."""
        while True:
            for post in self._posts():
                _tend(post, say)
            time.sleep(_WATCH_EVERY_S)

    def stop(self) -> None:
        """End the stages, the last first, each child within its grace. A KeyboardInterrupt kills what is left."""
        try:
            for stage in reversed(self._stages):
                for post in stage:
                    post.child.end()
                for post in stage:
                    post.child.wait()
        except KeyboardInterrupt:
            for post in self._posts():
                post.child.kill()
            for post in self._posts():
                post.child.wait()

    def _posts(self) -> Iterator[_Post]:
        return (post for stage in self._stages for post in stage)


def _tend(post: _Post, say: Callable[[str], None]) -> None:
    now_s = time.monotonic()
    if post.start_at_s is not None:
        if now_s >= post.start_at_s:
            post.start()
        return
    code = post.child.exit_code
    if code is None:
        return
    delay_s = post.restarts.died(now_s, started_s=post.started_s)
    if delay_s is None:
        raise ChildError(
            f"{post.child.name} ended {MOST_DEATHS} times within {WINDOW_S:g} seconds; Darkroom gives up."
            f" {_last_words(post.child)}"
        )
    post.start_at_s = now_s + delay_s
    say(f"{post.child.name} {_how(code)}; starting it again in {delay_s:g} s. Its log: {post.child.log}")


def _how(code: int) -> str:
    if code > 128:
        try:
            return f"was ended by {signal.Signals(code - 128).name}"
        except ValueError:
            pass
    return f"ended with exit code {code}"


def _last_words(child: Child) -> str:
    lines = child.last_lines()
    if not lines:
        return f"It logged nothing ({child.log})."
    return "\n".join([f"The end of its log, {child.log}:", *(f"    {line}" for line in lines)])
