"""What a client is told of a job as it develops, and what it was told already.

The id of an event is all that its reader knows by then: a client that comes back with it as Last-Event-ID is told what
is new since, and nothing twice. Ids are made of the record alone, so any gateway can go on where another was cut off.
They grow as the job does: by status, stage, step, and previews. When its worker is lost, the job is queued again and
its ids start anew.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

from app.api.views import STATUS_OF, Status
from app.jobs.schema import JobRecord, JobState, Stage

_RANKS = {status: rank for rank, status in enumerate(Status, start=1)}
_STAGES = {stage: rank for rank, stage in enumerate(Stage, start=1)}
_ID = re.compile(r"([0-5])-([0-7])-([0-9]{1,9})((?:-[0-9]{1,9}){0,100})")


class EventKind(StrEnum):
    STATUS = "status"
    PROGRESS = "progress"
    PREVIEW = "preview"


@dataclass(frozen=True, slots=True)
class Told:
    """What a client knows: ranks of status and stage, steps done, and each image's preview by its step; 0: nothing."""

    status: int = 0
    stage: int = 0
    step: int = 0
    previews: tuple[int, ...] = ()

    def __str__(self) -> str:
        return "-".join(map(str, (self.status, self.stage, self.step, *self.previews)))

    @classmethod
    def parse(cls, event_id: str) -> Self:
        """Read an id; one that is none of ours is as good as no id."""
        match = _ID.fullmatch(event_id)
        if match is None:
            return cls()
        return cls(int(match[1]), int(match[2]), int(match[3]), tuple(map(int, match[4].split("-")[1:])))

    def is_current(self, record: JobRecord) -> bool:
        """Whether its reader knows the status of the job."""
        return self.status == _RANKS[STATUS_OF[record.state]]


@dataclass(frozen=True, slots=True)
class News:
    """One event. told: what its reader knows then. index: of the image whose preview there is."""

    kind: EventKind
    told: Told
    index: int = 0


def news(record: JobRecord, told: Told, *, only_status: bool = False) -> Iterator[News]:
    """Say what a client that was told this does not know yet, in order."""
    if not told.is_current(record):
        rank = _RANKS[STATUS_OF[record.state]]
        # What was told of a job that is queued again holds no more.
        told = replace(told, status=rank) if rank > told.status else Told(rank)
        yield News(EventKind.STATUS, told)
    progress = record.progress
    if only_status or progress is None or record.state is not JobState.IN_PROGRESS:
        return
    for index, step in enumerate(progress.previews):
        previews = (*told.previews, *[0] * len(progress.previews))[: len(progress.previews)]
        if step != previews[index]:
            told = replace(told, previews=(*previews[:index], step, *previews[index + 1 :]))
            yield News(EventKind.PREVIEW, told, index)
    stage = _STAGES[progress.stage]
    if (stage, progress.step) != (told.stage, told.step):
        yield News(EventKind.PROGRESS, replace(told, stage=stage, step=progress.step))
