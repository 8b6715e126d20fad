"""What a run showed: figures, what was found wrong, and whether the run proves anything at all."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table

from app.api.views import Status
from tests.system.chaos.ledger import Ledger
from tests.system.chaos.reclaims import GATE_S, Reclaimed
from tests.system.chaos.stack import NULL_MODEL
from tests.system.chaos.trouble import DRAINS, FREEZES, KILLS, Happened, Trouble
from tests.system.chaos.worker_logs import WorkerLogs


@dataclass(frozen=True, slots=True)
class Left:
    """What the gateway counts when everything is over; all of it must be 0."""

    queued: int
    in_progress: int
    dead: int


@dataclass(frozen=True, slots=True)
class Report:
    """held: jobs in the hands of workers that were killed or frozen. crashes: what the jobs' records count. null_steps:
    taken by null workers, one a row. unexpected: processes that ended without being asked to."""

    seed: int
    seconds: float
    idempotent: bool
    ledger: Ledger
    happened: Sequence[Happened]
    reclaimed: Sequence[Reclaimed]
    held: int
    logs: WorkerLogs
    null_steps: int
    crashes: int
    left: Left
    unexpected: Sequence[str]

    @property
    def slowest_reclaim_s(self) -> float:
        return max((reclaimed.beyond_lease_s for reclaimed in self.reclaimed), default=0.0)

    def figures(self) -> dict[str, object]:
        entries = self.ledger.entries.values()
        ends = Counter(entry.ended for entry in self.ledger.accepted)
        dead = sum(entry.error_code == "worker_lost" for entry in self.ledger.accepted)
        troubles = Counter(happened.trouble for happened in self.happened)
        return {
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "idempotency key heeded": self.idempotent,
            "submissions": len(entries),
            "refused": sum(self.ledger.refused.values()),
            "ambiguous submissions": sum(entry.was_ambiguous for entry in entries),
            "of them accepted": sum(entry.was_ambiguous and entry.job_id is not None for entry in entries),
            "of them accepted late": self.ledger.late,
            "accepted": len(self.ledger.accepted),
            "completed": ends[Status.COMPLETED],
            "canceled": ends[Status.CANCELED],
            "failed": ends[Status.FAILED] - dead,
            "dead": dead,
            "readings of ended jobs": self.ledger.readings_again,
            "downloads": self.ledger.downloads,
            "pictures drawn again": self.ledger.drawn_again,
            **{str(trouble): troubles[trouble] for trouble in Trouble},
            "lives of jobs lost (crashes)": self.crashes,
            "reclaims measured": len(self.reclaimed),
            "held by killed and frozen workers": self.held,
            "slowest reclaim beyond the lease, s": round(self.slowest_reclaim_s, 2),
            "fenced completions": self.logs.fenced,
            "drops: lease lost": self.logs.dropped["lease_lost"],
            "drops: lease unconfirmed": self.logs.dropped["lease_unconfirmed"],
            "images resumed": self.logs.resumes,
            "steps that a checkpoint saved": self.logs.steps_saved,
            "null steps taken": self.null_steps,
            "of them not in a completed job": self.null_steps - self._null_steps_shown(),
            "queued at the end": self.left.queued,
            "in progress at the end": self.left.in_progress,
            "on the dead list at the end": self.left.dead,
            "wrong": dict(Counter(str(wrong) for wrong, _ in self.ledger.problems)),
            "workers' warnings": dict(self.logs.troubles),
        }

    def _null_steps_shown(self) -> int:
        orders = [entry.order for entry in self.ledger.accepted if entry.ended is Status.COMPLETED]
        return sum(order.n * order.steps for order in orders if order.model == NULL_MODEL)

    def failures(self) -> list[str]:
        """Why the run failed; empty when Darkroom held, and was put to the test."""
        return [*self.proves_nothing(), *self._went_wrong()]

    def table(self) -> Table:
        table = Table("what", "count", title="chaos")
        for name, figure in self.figures().items():
            table.add_row(name, str(figure))
        return table

    def _went_wrong(self) -> Iterator[str]:
        yield from (f"{wrong}: {detail}" for wrong, detail in self.ledger.problems)
        yield from self.unexpected
        if self.left != Left(0, 0, 0):
            yield f"something is left in the queue: {self.left}"
        yield from (str(reclaimed) for reclaimed in self.reclaimed if reclaimed.beyond_lease_s > GATE_S)

    def proves_nothing(self) -> Iterator[str]:
        """Name the kinds of trouble that the run never met."""
        troubles = Counter(happened.trouble for happened in self.happened)
        counts = {
            **{str(kill): troubles[kill] for kill in KILLS},
            "freezes": sum(troubles[freeze] for freeze in FREEZES),
            "drains": sum(troubles[drain] for drain in DRAINS),
            "fenced completions": self.logs.fenced,
            "resumes": self.logs.resumes,
            "ambiguous submissions": sum(entry.was_ambiguous for entry in self.ledger.entries.values()),
            "measured reclaims": len(self.reclaimed),
        }
        yield from (f"the run proves nothing: there were no {name}" for name, count in counts.items() if not count)
