"""What a run showed, and what of it is wrong."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean

from rich.table import Table

from tests.system.overload.clients import Wait
from tests.system.overload.memory import Memory, growth

TRUE_WITHIN = 2.0
LEAST_GOODPUT = 0.95
_UNTRUE = 0.05
_ROUND_TRIPS_S = 0.3
_FEW = 10
_GATEWAY_MAY_GROW_MIB = 8.0
_JOB_MAY_TAKE_MIB = 8 / 1024


@dataclass(frozen=True, slots=True)
class Phase:
    """One kind of load. seconds: without the warming up; drawn: jobs in that time, by the steps taken: nothing is drawn
    in vain here, and whole jobs end by the batch."""

    name: str
    seconds: float
    drawn: float
    accepted: int
    refused: int
    gone: int
    waits: Sequence[Wait]
    memory: Memory
    other_answers: Counter[str]

    @property
    def goodput(self) -> float:
        return self.drawn / self.seconds

    @property
    def late(self) -> list[float]:
        """How many times as long as they were told it took those who came back, in order."""
        return sorted(wait.took_s / wait.told_s for wait in self.waits)


@dataclass(frozen=True, slots=True)
class Report:
    """full: phases in which the queue was always full and nobody refused, which tell the capacity."""

    full: Sequence[Phase]
    overloads: Sequence[Phase]

    @property
    def capacity(self) -> float:
        """Jobs a second."""
        return fmean(phase.goodput for phase in self.full)

    def failures(self, least_goodput: float = LEAST_GOODPUT) -> list[str]:
        return list(chain.from_iterable(self._failures(phase, least_goodput) for phase in self.overloads))

    def figures(self) -> dict[str, dict[str, object]]:
        return {phase.name: self._figures(phase) for phase in (*self.full, *self.overloads)}

    def table(self) -> Table:
        figures = self.figures()
        table = Table("", *figures)
        columns = list(figures.values())
        for name in columns[0]:
            table.add_row(name, *(str(column[name]) for column in columns))
        return table

    def _figures(self, phase: Phase) -> dict[str, object]:
        return {
            "seconds": round(phase.seconds, 1),
            "jobs drawn a second": round(phase.goodput, 2),
            "of capacity": round(phase.goodput / self.capacity, 3),
            "accepted": phase.accepted,
            "refused (429)": phase.refused,
            "refused a second": round(phase.refused / phase.seconds, 1),
            "came back and were accepted": len(phase.waits),
            "told, s, median": round(_at([wait.told_s for wait in phase.waits], 0.5), 2),
            "took, times told, median": round(_at(phase.late, 0.5), 2),
            "took, times told, 95 %": round(_at(phase.late, 0.95), 2),
            "took, times told, most": round(_at(phase.late, 1), 2),
            "gateway's memory, MiB": round(_at(phase.memory.gateway, 0.5), 1),
            "gateway's growth, MiB": round(growth(phase.memory.gateway), 2),
            "Valkey's memory, MiB": round(_at(phase.memory.valkey, 0.5), 2),
            "Valkey's growth, MiB": round(growth(phase.memory.valkey), 3),
            "other answers": sum(phase.other_answers.values()),
        }

    def _failures(self, phase: Phase, least_goodput: float) -> Iterator[str]:
        share = phase.goodput / self.capacity
        if share < least_goodput:
            yield f"{phase.name}: goodput is {share:.1%} of capacity"
        if len(phase.waits) < _FEW:
            yield f"{phase.name}: only {len(phase.waits)} came back and were accepted: this proves nothing"
        elif (untrue := sum(map(_is_untrue, phase.waits))) > _UNTRUE * len(phase.waits):
            yield f"{phase.name}: {untrue} of {len(phase.waits)} waited more than {TRUE_WITHIN:g} times as long as told"
        if (grown := growth(phase.memory.gateway)) > _GATEWAY_MAY_GROW_MIB:
            yield f"{phase.name}: the gateway grew by {grown:.1f} MiB"
        # Records of jobs that are over stay; of who was refused nothing does.
        if (grown := growth(phase.memory.valkey)) > 1 + _JOB_MAY_TAKE_MIB * phase.accepted:
            yield f"{phase.name}: Valkey grew by {grown:.1f} MiB with {phase.accepted} jobs"
        for answer, times in phase.other_answers.items():
            yield f"{phase.name}: {times} times {answer}"


def _is_untrue(wait: Wait) -> bool:
    # Whoever was told one second, and then one more, is on the way three times besides.
    return wait.took_s > TRUE_WITHIN * wait.told_s + _ROUND_TRIPS_S


def _at(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
