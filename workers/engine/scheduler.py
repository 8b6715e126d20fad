"""Which requests step next. Pure Python on plain data: the same object runs in a virtual-time simulator."""

from collections.abc import Hashable, Sequence
from typing import Protocol, TypeVar


class Schedulable(Protocol):
    """What the scheduler looks at: what may share a batch, rows taken, and order of arrival."""

    @property
    def key(self) -> Hashable: ...
    @property
    def rows(self) -> int: ...
    @property
    def arrival(self) -> int: ...


Request = TypeVar("Request", bound=Schedulable)


class Scheduler:
    """First come, first served inside a group of equal keys; groups take turns.

    A group that waited longest since its last step goes next, so no model or size starves another.
    """

    def __init__(self, max_rows: int) -> None:
        if max_rows < 2:
            raise ValueError(f"max_rows must be at least 2, the rows of one guided request; got {max_rows}")
        self._max_rows = max_rows
        self._turn = 0
        self._last_turn: dict[Hashable, int] = {}

    def next_batch(self, requests: Sequence[Request]) -> list[Request]:
        """Choose the requests of the next step; empty only when there are none."""
        if not requests:
            return []
        groups: dict[Hashable, list[Request]] = {}
        for request in sorted(requests, key=lambda request: request.arrival):
            groups.setdefault(request.key, []).append(request)
        self._last_turn = {key: turn for key, turn in self._last_turn.items() if key in groups}
        key = min(groups, key=lambda key: (self._last_turn.get(key, -1), groups[key][0].arrival))
        self._turn += 1
        self._last_turn[key] = self._turn
        return self._fill(groups[key])

    def _fill(self, group: Sequence[Request]) -> list[Request]:
        batch: list[Request] = []
        rows = 0
        for request in group:
            # Strictly in order: letting a one-row request overtake a two-row one could starve the latter.
            if rows + request.rows > self._max_rows:
                break
            batch.append(request)
            rows += request.rows
        return batch
