"""When a process that died may start again."""

from dataclasses import dataclass, field

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 10.0
WINDOW_S = 60.0
MOST_DEATHS = 5


@dataclass(slots=True)
class Restarts:
    """One process's deaths. Times are seconds on any one monotonic clock."""

    first_delay_s: float = FIRST_DELAY_S
    _next_delay_s: float = 0.0
    _deaths_s: list[float] = field(default_factory=list)

    def died(self, now_s: float, *, started_s: float) -> float | None:
        """Give the seconds to wait before it starts again, or None when it has died too often to try.

        The delay doubles from death to death, and starts over once the process has lived a whole window.
        """
        self._deaths_s = [*(then_s for then_s in self._deaths_s if then_s > now_s - WINDOW_S), now_s]
        if len(self._deaths_s) >= MOST_DEATHS:
            return None
        lived_long = now_s - started_s >= WINDOW_S
        delay_s = self.first_delay_s if lived_long or not self._next_delay_s else self._next_delay_s
        self._next_delay_s = min(2 * delay_s, LONGEST_DELAY_S)
        return delay_s
