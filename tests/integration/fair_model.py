"""Fair queueing between tenants and priorities as a plain Python model: no atomicity, keys or server."""

import math
from dataclasses import dataclass, field

from app.jobs.schema import Priority

SHARES = {Priority.HIGH: 64, Priority.NORMAL: 8, Priority.LOW: 1}
ORDER = [Priority.HIGH, Priority.NORMAL, Priority.LOW]

Flow = tuple[Priority, str]


@dataclass(slots=True)
class FairModel:
    """Where each flow may start next in each lane. `starts`: of those with jobs in line; `debts`: of the others that
    are ahead of the lane's clock. Virtual time is in whole 1/1024 ms."""

    clocks: dict[str, int] = field(default_factory=dict)
    starts: dict[tuple[str, Flow], int] = field(default_factory=dict)
    debts: dict[tuple[str, Flow], int] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)

    def clock(self, lane: str) -> int:
        return self.clocks.get(lane, 0)

    def lead(self, lane: str, flow: Flow) -> int:
        return self.starts[(lane, flow)] - self.clock(lane)

    def toll(self, flow: Flow, cost_ms: int) -> int:
        return max(1, math.floor(1024 * cost_ms / (SHARES[flow[0]] * self.weights.get(flow[1], 1.0)) + 0.5))

    def join(self, lane: str, flow: Flow) -> None:
        if (lane, flow) not in self.starts:
            self.starts[(lane, flow)] = max(self.clock(lane), self.debts.pop((lane, flow), 0))

    def leave(self, lane: str, flow: Flow) -> None:
        """The last job in line of a flow is gone."""
        start = self.starts.pop((lane, flow))
        if start > self.clock(lane):
            self.debts[(lane, flow)] = start

    def charge(self, lanes: tuple[str, ...], flow: Flow, lead: int, cost_ms: int) -> None:
        """A worker of these lanes took a job that was this far ahead of its lane's clock."""
        for lane in lanes:
            if lead:
                self.clocks[lane] = self.clock(lane) + lead
            if (lane, flow) in self.starts:
                self.starts[(lane, flow)] += self.toll(flow, cost_ms)
            else:
                ahead = max(self.clock(lane), self.debts.get((lane, flow), 0))
                self.debts[(lane, flow)] = ahead + self.toll(flow, cost_ms)
        self.debts = {place: debt for place, debt in self.debts.items() if debt > self.clock(place[0])}
