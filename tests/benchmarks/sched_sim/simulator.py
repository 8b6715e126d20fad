"""A machine with a virtual clock: requests arrive, a policy says what runs next, and a table says how long it takes."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tests.benchmarks.sched_sim.workloads import Arrival, RequestClass
from workers.engine.cost import CostModel, Stage
from workers.engine.scheduler import Priority


@dataclass(frozen=True, slots=True)
class Size:
    """What may share a simulated batch."""

    model: str
    height: int
    width: int


@dataclass(slots=True, eq=False)
class SimRequest:
    """A request on its way through the simulated machine. solo_s: its latency on an idle machine."""

    request_class: RequestClass
    key: Size
    arrival_s: float
    solo_s: float
    num_inference_steps: int
    remaining_steps: int
    rows: int = 1
    priority: Priority = Priority.NORMAL
    deadline_s: float | None = None
    encoded: bool = False
    finished_s: float = 0.0

    @property
    def slowdown(self) -> float:
        return (self.finished_s - self.arrival_s) / self.solo_s


@dataclass(frozen=True, slots=True)
class Run:
    """One stage of some requests, as one batch."""

    stage: Stage
    requests: Sequence[SimRequest]


@dataclass(slots=True)
class Machine:
    """Runs batches in the time that `truth` says, give or take `noise` (the standard deviation of its logarithm).

    Counts the denoising steps that it took, and their rows.
    """

    truth: CostModel
    noise: float = 0.0
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    steps: int = 0
    rows: int = 0

    def solo_s(self, key: Size, rows: int, steps: int) -> float:
        truth = self.truth
        return (
            truth.seconds(Stage.TEXT_ENCODE, key, 1)
            + steps * truth.seconds(Stage.DENOISE, key, rows)
            + truth.seconds(Stage.VAE_DECODE, key, 1)
        )

    def rows_of(self, run: Run) -> int:
        return sum(request.rows for request in run.requests) if run.stage is Stage.DENOISE else len(run.requests)

    def run(self, run: Run, now_s: float) -> float:
        """Do the work; tell how many seconds it took."""
        seconds = self.truth.seconds(run.stage, run.requests[0].key, self.rows_of(run))
        if self.noise:
            seconds *= self.rng.lognormvariate(0, self.noise)
        for request in run.requests:
            if run.stage is Stage.TEXT_ENCODE:
                request.encoded = True
            elif run.stage is Stage.DENOISE:
                request.remaining_steps -= 1
            else:
                request.finished_s = now_s + seconds
        if run.stage is Stage.DENOISE:
            self.steps += 1
            self.rows += self.rows_of(run)
        return seconds


class Policy(Protocol):
    """Decides what the machine does next."""

    def next_run(self, live: Sequence[SimRequest], now_s: float) -> Run | float:
        """The next batch of the unfinished requests, in order of arrival; or the time until which to wait for more."""
        ...

    def observe(self, run: Run, rows: int, seconds: float) -> None:
        """Hear how long it took."""
        ...


def requests_for(arrived: Sequence[Arrival], machine: Machine, model: str, native: int) -> list[SimRequest]:
    """Simulated requests for a model with this native side, in pixels."""
    requests = []
    for arrival in arrived:
        side, steps = arrival.request_class.pixels(native), arrival.request_class.num_inference_steps
        key = Size(model, side, side)
        solo_s = machine.solo_s(key, 1, steps)
        requests.append(SimRequest(arrival.request_class, key, arrival.arrival_s, solo_s, steps, steps))
    return requests


def simulate(requests: Sequence[SimRequest], policy: Policy, machine: Machine) -> None:
    """Serve all requests: each gets its finished_s."""
    now_s = 0.0
    live: list[SimRequest] = []
    arrived = 0
    while arrived < len(requests) or live:
        while arrived < len(requests) and requests[arrived].arrival_s <= now_s:
            live.append(requests[arrived])
            arrived += 1
        until_s = requests[arrived].arrival_s if arrived < len(requests) else float("inf")
        choice = policy.next_run(live, now_s) if live else until_s
        if not isinstance(choice, Run):
            now_s = min(choice, until_s)
            continue
        seconds = machine.run(choice, now_s)
        policy.observe(choice, machine.rows_of(choice), seconds)
        now_s += seconds
        if choice.stage is Stage.VAE_DECODE:
            live = [request for request in live if not request.finished_s]
