"""What the simulator compares: the server's own scheduler, and what other servers do."""

from collections.abc import Callable, Hashable, Sequence

from tests.benchmarks.sched_sim.simulator import Machine, Policy, Run, SimRequest
from workers.engine.cost import CostModel, Stage
from workers.engine.scheduler import Scheduler

WINDOW_S = 0.05  # static batching: how long the first request of a batch waits for others


def next_stage(request: SimRequest) -> Stage:
    if not request.encoded:
        return Stage.TEXT_ENCODE
    return Stage.DENOISE if request.remaining_steps else Stage.VAE_DECODE


class Deaf:
    """A policy that learns nothing from what runs take."""

    def observe(self, run: Run, rows: int, seconds: float) -> None:
        pass


class FirstCome(Deaf):
    """One request at a time, from its prompt to its pixels, in order of arrival: stock diffusers behind a queue."""

    def next_run(self, live: Sequence[SimRequest], now_s: float) -> Run | float:
        return Run(next_stage(live[0]), live[:1])


class StaticBatching(Deaf):
    """Whole requests of equal size and steps, which arrived while the first waited its window, run as one batch."""

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._batch: list[SimRequest] = []

    def next_run(self, live: Sequence[SimRequest], now_s: float) -> Run | float:
        self._batch = [request for request in self._batch if not request.finished_s]
        if not self._batch:
            first = live[0]
            alike = [
                request
                for request in live
                if (request.key, request.num_inference_steps) == (first.key, first.num_inference_steps)
            ][: self._max_rows]
            due_s = first.arrival_s + WINDOW_S
            if now_s < due_s and len(alike) < self._max_rows:
                return due_s
            self._batch = alike
        return Run(next_stage(self._batch[0]), self._batch)


class Sharing(Deaf):
    """Everybody is in the batch at once, as many as fit; unlike requests take turns, step by step."""

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._turns: dict[Hashable, int] = {}

    def next_run(self, live: Sequence[SimRequest], now_s: float) -> Run | float:
        groups: dict[tuple[Stage, Hashable], list[SimRequest]] = {}
        for request in live:
            groups.setdefault((next_stage(request), request.key), []).append(request)
        # Everybody comes in before the next step, and goes out after their last.
        stages = [Stage.TEXT_ENCODE, Stage.VAE_DECODE, Stage.DENOISE]
        group = min(groups, key=lambda group: (stages.index(group[0]), self._turns.get(group[1], -1)))
        if group[0] is Stage.DENOISE:
            self._turns[group[1]] = 1 + max(self._turns.values(), default=-1)
        return Run(group[0], groups[group][: self._max_rows])


class ShortestFirst(Deaf):
    """The oracle: shortest remaining processing time, one request at a time, with the true times known beforehand."""

    def __init__(self, truth: CostModel) -> None:
        self._truth = truth

    def next_run(self, live: Sequence[SimRequest], now_s: float) -> Run | float:
        request = min(live, key=self._remaining_s)
        return Run(next_stage(request), [request])

    def _remaining_s(self, request: SimRequest) -> float:
        seconds = self._truth.seconds
        return (
            (not request.encoded) * seconds(Stage.TEXT_ENCODE, request.key, 1)
            + request.remaining_steps * seconds(Stage.DENOISE, request.key, request.rows)
            + seconds(Stage.VAE_DECODE, request.key, 1)
        )


class Ours:
    """The server's scheduler, driven as the engine drives it: a few prompts are encoded, then one batch runs."""

    def __init__(self, scheduler: Scheduler, cost: CostModel, learns: bool = True) -> None:
        self._scheduler = scheduler
        self._cost = cost
        self._learns = learns
        self._step_s = 0.0
        self._admit = 0
        self._at_boundary = True

    def next_run(self, live: Sequence[SimRequest], now_s: float) -> Run | float:
        newcomers = [request for request in live if not request.encoded]
        if newcomers and self._at_boundary:
            encodes_s = [self._cost.seconds(Stage.TEXT_ENCODE, request.key, 1) for request in newcomers]
            self._admit = self._scheduler.admissions(encodes_s, self._step_s)
            self._at_boundary = False
        if newcomers and self._admit:
            self._admit -= 1
            return Run(Stage.TEXT_ENCODE, newcomers[:1])
        self._at_boundary = True
        work = self._scheduler.next_work([request for request in live if request.encoded], now_s)
        if work is None:
            raise AssertionError("a live request is a newcomer or can be scheduled")
        return Run(work.stage, work.requests)

    def observe(self, run: Run, rows: int, seconds: float) -> None:
        if run.stage is not Stage.TEXT_ENCODE:
            self._step_s = seconds
        if self._learns:
            self._cost.observe(run.stage, run.requests[0].key, rows, seconds)


PolicyMaker = Callable[[Machine, int], Policy]


def ours(**settings: float) -> PolicyMaker:
    """Our scheduler with some of its settings changed; its cost model knows nothing at first."""

    def make(machine: Machine, max_rows: int) -> Policy:
        cost = CostModel(max_rows=max_rows)
        return Ours(Scheduler(cost, max_rows, **settings), cost)

    return make


def ours_knowing(machine: Machine, max_rows: int) -> Policy:
    """Our scheduler with the true times known beforehand: what learning costs."""
    return Ours(Scheduler(machine.truth, max_rows), machine.truth, learns=False)


POLICIES: dict[str, PolicyMaker] = {
    "first-come": lambda machine, max_rows: FirstCome(),
    "static": lambda machine, max_rows: StaticBatching(max_rows),
    "sharing": lambda machine, max_rows: Sharing(max_rows),
    "srpt-oracle": lambda machine, max_rows: ShortestFirst(machine.truth),
    "ours": ours(),
}

# Ours without its parts and with other exponents.
VARIANTS: dict[str, PolicyMaker] = {
    "ours": ours(),
    "ours, costs known": ours_knowing,
    "ageing 0": ours(ageing=0.0),
    "ageing 2": ours(ageing=2.0),
    "ageing 4": ours(ageing=4.0),
    "efficiency 0": ours(efficiency=0.0),
    "efficiency 2": ours(efficiency=2.0),
    "oldest share 0": ours(oldest_share=0.0),
    "oldest share 0.2": ours(oldest_share=0.2),
}
