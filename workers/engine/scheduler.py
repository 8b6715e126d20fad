"""What the engine runs next. Pure Python on plain data: the same object runs in a virtual-time simulator.

The aim is the least sum of squared slowdowns (a slowdown is a request's latency over its latency on an idle machine).
The generalised c-mu rule (van Mieghem 1995) says what to run for it: whoever has the highest

    index = priority x urgency x (1 + waited / solo) / (solo x remaining)

with `solo` and `remaining` the seconds that the whole request and its rest take alone. Like requests can share a
forward, so each group of them, sorted by index, offers the batch of its first few that maximises

    gain = (sum of index x t1) / t  x  (sum of t1) / t

with t1 the seconds of a request's step alone, t of the batch's. The first factor is Smith's rule for batches; the
second, how much quicker the batch is than its requests one by one. Where a further row costs as much as the first,
that is always 1, and the shortest work goes alone; where rows are free, everybody joins. The group with the highest
gain goes next. tests/benchmarks/sched_sim compares this with other policies, and with itself without its parts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from operator import attrgetter
from typing import Generic, Protocol, TypeVar

from workers.engine.cost import CostModel, Shape, Stage


class Priority(IntEnum):
    LOW = 0
    NORMAL = 1
    HIGH = 2


class Schedulable(Protocol):
    """What the scheduler looks at. rows: of one denoising step. Times are on the clock of `now_s`, and nothing arrives
    after it."""

    @property
    def key(self) -> Shape: ...
    @property
    def rows(self) -> int: ...
    @property
    def arrival_s(self) -> float: ...
    @property
    def num_inference_steps(self) -> int: ...
    @property
    def remaining_steps(self) -> int: ...
    @property
    def priority(self) -> Priority: ...
    @property
    def deadline_s(self) -> float | None: ...


Request = TypeVar("Request", bound=Schedulable)


PAYS = 1.001
"""A further row joins if the gain grows by more than this: where rows neither pay nor cost, noise must not decide."""


@dataclass(frozen=True, slots=True)
class Work(Generic[Request]):
    """One batch: a denoising step, or the decoding of finished latents. Its requests share a key."""

    stage: Stage
    requests: list[Request]


def _resident(_model: str) -> float:
    return 0.0


class Scheduler:
    """Chooses the next work of the requests in flight. It remembers no request, only what it owes to the oldest."""

    def __init__(
        self,
        cost: CostModel,
        max_rows: int,
        *,
        ageing: float = 1.0,
        efficiency: float = 1.0,
        priority_weight: float = 100.0,
        deadline_weight: float = 100.0,
        oldest_share: float = 0.05,
        encode_share: float = 0.5,
    ) -> None:
        """Set the policy. The defaults won in the simulator.

        ageing: the exponent of the slowdown so far; 0 is no ageing, more evens out slowdowns at the cost of their mean.
        efficiency: the exponent of the second factor of the gain.
        priority_weight: how much more a class counts than the one below: 100 goes before work ten times shorter.
        deadline_weight: how much more a request counts that can only just meet its deadline.
        oldest_share: seconds owed to the oldest request in flight for each second that others run without it, whatever
            the indexes say. So each request finishes, under any load.
        encode_share: how much of a step's time the text encodes before it may take.
        """
        if max_rows < 2:
            raise ValueError(f"max_rows must be at least 2, the rows of one guided request; got {max_rows}")
        if max_rows > cost.max_rows:
            raise ValueError(
                f"max_rows is {max_rows}, but the cost model knows batches up to {cost.max_rows} rows only"
            )
        self.cost = cost
        self._max_rows = max_rows
        self._ageing = ageing
        self._efficiency = efficiency
        self._weights = (1 / priority_weight, 1.0, priority_weight)
        self._deadline_weight = deadline_weight
        self._oldest_share = oldest_share
        self._encode_share = encode_share
        self._caps: dict[tuple[Stage, Shape], int] = {}
        self._owed_s = 0.0

    def lower_cap(self, key: Shape, rows: int, stage: Stage = Stage.DENOISE) -> None:
        """From now on, at most this many rows for this key; one request alone may still take more."""
        self._caps[stage, key] = min(rows, self._caps.get((stage, key), rows))

    def admissions(self, encodes_s: Sequence[float], step_s: float) -> int:
        """How many of the newcomers to admit before the next step, in order of arrival; at least one.

        encodes_s: what encoding each one's prompts is expected to take, nothing if they are cached. step_s: what the
        next step is expected to take; it waits for them.
        """
        spent_s = 0.0
        for count, encode_s in enumerate(encodes_s):
            spent_s += encode_s
            if count and spent_s > self._encode_share * step_s:
                return count
        return len(encodes_s)

    def next_work(
        self, requests: Sequence[Request], now_s: float, switch_s: Callable[[str], float] = _resident
    ) -> Work[Request] | None:
        """Choose what runs next; None only when there are no requests.

        A request without remaining steps waits for its VAE decode. switch_s: seconds to bring in a model, by name.
        Ties go to the earlier arrival, then to the earlier place in `requests`.
        """
        if not requests:
            return None
        groups = self._groups(requests, now_s)
        oldest = min(requests, key=_ARRIVAL)
        due = self._due(groups, oldest, switch_s)
        if due is not None:
            return Work(due.stage, self._offer(due, 0.0)[1])
        best_gain, best = -1.0, groups[0]
        batch: list[Request] = []
        for group in groups:
            # A model that must be brought in first spreads that over the steps that it would then run.
            switching_s = switch_s(group.key.model) / group.steps if len(groups) > 1 else 0.0
            gain, offered = self._offer(group, switching_s)
            if gain > best_gain:
                best_gain, best, batch = gain, group, offered
        if oldest not in batch:
            self._owed_s += self._oldest_share * best.curve[best.rows(batch)]
        return Work(best.stage, batch)

    def _groups(self, requests: Sequence[Request], now_s: float) -> list["_Group[Request]"]:
        """Everybody with their index, by stage and key, best first."""
        pairs: dict[Shape, tuple[_Group[Request], _Group[Request]]] = {}
        weights, ageing = self._weights, self._ageing
        key = None
        for place, request in enumerate(requests):
            if request.key is not key:
                key = request.key
                pair = pairs.get(key)
                if pair is None:
                    pair = pairs[key] = self._group(Stage.DENOISE, key), self._group(Stage.VAE_DECODE, key)
                denoising, decoding = pair
                decode_s = decoding.curve[1]
            steps = request.remaining_steps
            rows = request.rows
            step_s = denoising.curve[rows]
            solo_s = request.num_inference_steps * step_s + decode_s
            remaining_s = steps * step_s + decode_s
            arrival_s = request.arrival_s
            index = weights[request.priority] * (1 + max(0.0, now_s - arrival_s) / solo_s) ** ageing
            index /= solo_s * remaining_s
            if request.deadline_s is not None:
                index *= self._urgency(remaining_s, request.deadline_s - now_s)
            if steps:
                denoising.entries.append((-index, arrival_s, place, rows, step_s, request))
                if steps > denoising.steps:
                    denoising.steps = steps
            else:
                decoding.entries.append((-index, arrival_s, place, 1, decode_s, request))
        groups = [group for pair in pairs.values() for group in pair if group.entries]
        for group in groups:
            group.entries.sort()
        return groups

    def _group(self, stage: Stage, key: Shape) -> "_Group[Request]":
        cap = min(self._max_rows, self._caps.get((stage, key), self._max_rows))
        return _Group(stage, key, self.cost.curve(stage, key), cap)

    def _urgency(self, remaining_s: float, left_s: float) -> float:
        """Rises with the square of the share of the time left that its work needs; a lost deadline is no matter."""
        if left_s < remaining_s:
            return 1.0
        return 1 + self._deadline_weight * (remaining_s / left_s) ** 2

    def _due(
        self, groups: Sequence["_Group[Request]"], oldest: Request, switch_s: Callable[[str], float]
    ) -> "_Group[Request] | None":
        """The oldest request's group with it at the head, once its share of the past has paid for its next step."""
        stage, rows = (Stage.DENOISE, oldest.rows) if oldest.remaining_steps else (Stage.VAE_DECODE, 1)
        price_s = self.cost.seconds(stage, oldest.key, rows) + switch_s(oldest.key.model)
        if self._owed_s < price_s:
            return None
        self._owed_s -= price_s
        group = next(group for group in groups if group.stage is stage and group.key == oldest.key)
        group.entries.sort(key=lambda entry: entry[-1] is not oldest)
        return group

    def _offer(self, group: "_Group[Request]", switching_s: float) -> tuple[float, list[Request]]:
        """The best few of a group to run together, and their gain."""
        best_gain, best_count = 0.0, 1
        batch: list[Request] = []
        rows, value, alone_s = 0, 0.0, 0.0
        curve, cap, efficiency = group.curve, group.cap, self._efficiency
        for negative_index, _, _, more_rows, step_s, request in group.entries:
            if batch and rows + more_rows > cap:
                # Two rows do not fit, one may. Who is passed over ages, and comes to the head of the group.
                continue
            batch.append(request)
            rows += more_rows
            value -= negative_index * step_s
            alone_s += step_s
            seconds = curve[rows] + switching_s
            gain = value / seconds * (alone_s / seconds) ** efficiency
            if gain > best_gain * PAYS:
                best_gain, best_count = gain, len(batch)
        return best_gain, batch[:best_count]


_ARRIVAL = attrgetter("arrival_s")


@dataclass(slots=True)
class _Group(Generic[Request]):
    """Who may share a batch: (-index, arrival_s, place, rows, seconds of a step alone, request), best first."""

    stage: Stage
    key: Shape
    curve: Sequence[float]
    cap: int
    entries: list[tuple[float, float, int, int, float, Request]] = field(default_factory=list)
    steps: int = 1

    def rows(self, batch: Sequence[Request]) -> int:
        return sum(request.rows for request in batch) if self.stage is Stage.DENOISE else len(batch)
