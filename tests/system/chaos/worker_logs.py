"""What the workers said in their logs. Their counters die with them; a line that was written stays."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class WorkerLogs:
    """All workers together. finished: by status; dropped: by why; troubles: events at level warning or worse.
    resumes: images that went on from a checkpoint; steps_saved: that they need not take again."""

    finished: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)
    resumes: int = 0
    steps_saved: int = 0

    @property
    def fenced(self) -> int:
        """Jobs that were drawn to the end, and handed in after they had become another worker's."""
        return self.finished["fenced"]


def read_logs(folder: Path) -> WorkerLogs:
    logs = WorkerLogs()
    for path in sorted(folder.glob("*.log")):
        for line in _lines(path):
            match line["event"]:
                case "job_resumed":
                    logs.resumes += 1
                    logs.steps_saved += line["step"]
                case "job_finished":
                    logs.finished[line["status"]] += 1
                case "job_dropped":
                    logs.dropped[line["why"]] += 1
            if line["level"] != "info":
                logs.troubles[line["event"]] += 1
    return logs


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Structured lines only: a worker that was killed may have left half of one."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and "event" in entry:
            yield entry
