"""Fair queueing between tenants and priorities as a plain Python model: no atomicity, keys or server."""

from dataclasses import dataclass, field

from app.jobs.schema import Priority

SHARES = {Priority.HIGH: 64, Priority.NORMAL: 8, Priority.LOW: 1}
ORDER = [Priority.HIGH, Priority.NORMAL, Priority.LOW]

Flow = tuple[Priority, str]


@dataclass(slots=True)
class FairModel:
    """Where each flow may start next. `starts`: of those with jobs in line; `debts`: of others, ahead of the clock."""

    clock: float = 0.0
    starts: dict[Flow, float] = field(default_factory=dict)
    debts: dict[Flow, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)

    def weight(self, flow: Flow) -> float:
        return SHARES[flow[0]] * self.weights.get(flow[1], 1.0)

    def join(self, flow: Flow) -> None:
        if flow not in self.starts:
            self.starts[flow] = max(self.clock, self.debts.pop(flow, 0.0))

    def leave(self, flow: Flow) -> None:
        """The last job in line of a flow is gone."""
        start = self.starts.pop(flow)
        if start > self.clock:
            self.debts[flow] = start

    def charge(self, flow: Flow, start: float, cost_ms: int) -> None:
        """A job was taken, which began at `start`."""
        paid = start + cost_ms / self.weight(flow)
        self.clock = max(self.clock, start)
        if flow in self.starts:
            self.starts[flow] = paid
        else:
            self.debts[flow] = paid
        self.debts = {other: debt for other, debt in self.debts.items() if debt > self.clock}
