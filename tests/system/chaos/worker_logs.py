"""What the workers said in their logs. Their counters die with them; a line that was written stays."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.system.chaos.process import Span


@dataclass(slots=True)
class WorkerLogs:
    """All workers together. finished: by status; dropped: by why; troubles: events at level warning or worse.
    resumes: images that went on from a checkpoint; steps_saved: that they need not take again.
    claims: job -> when it was claimed, sorted. idle: life -> when it served and held nothing."""

    finished: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)
    claims: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    idle: dict[str, list[Span]] = field(default_factory=dict)
    resumes: int = 0
    steps_saved: int = 0

    @property
    def fenced(self) -> int:
        """Jobs that were drawn to the end, and handed in after they had become another worker's."""
        return self.finished["fenced"]


def read_logs(folder: Path) -> WorkerLogs:
    logs = WorkerLogs()
    for path in folder.glob("*.log"):
        logs.idle[path.stem] = _read_life(path, logs)
    for times in logs.claims.values():
        times.sort()
    return logs


def _read_life(path: Path, logs: WorkerLogs) -> list[Span]:
    """Count what this log tells; return when the worker was idle, which after its end nobody may take for true."""
    holds: set[str] = set()
    idle: list[Span] = []
    idle_since_s: float | None = None
    for line in _lines(path):
        at_s = datetime.fromisoformat(line["timestamp"]).timestamp()
        match line["event"]:
            case "worker_ready":
                idle_since_s = at_s
            case "job_started":
                logs.claims[line["job_id"]].append(at_s)
                holds.add(line["job_id"])
                if idle_since_s is not None:
                    idle.append(Span(idle_since_s, at_s))
                    idle_since_s = None
            case "job_resumed":
                logs.resumes += 1
                logs.steps_saved += line["step"]
            case "job_finished" | "job_dropped" | "job_failed":
                if line["event"] == "job_finished":
                    logs.finished[line["status"]] += 1
                elif line["event"] == "job_dropped":
                    logs.dropped[line["why"]] += 1
                holds.discard(line["job_id"])
                if not holds and idle_since_s is None:
                    idle_since_s = at_s
        if line["level"] != "info":
            logs.troubles[line["event"]] += 1
    return idle if idle_since_s is None else [*idle, Span(idle_since_s, math.inf)]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Structured lines only: a worker that was killed may have left half of one."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and "event" in entry:
            yield entry
