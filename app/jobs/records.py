"""Records as the server holds them: flat hashes of strings and JSON.

They are shown, not acted upon, so that what a newer version added to them is passed over.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import structlog

from app.jobs.errors import UnreadableJobError
from app.jobs.schema import (
    ImageJob,
    JobError,
    JobRecord,
    JobResult,
    JobState,
    LaneStats,
    Priority,
    Progress,
    QueueStats,
    WorkerInfo,
)

log = structlog.get_logger()


def parse_record(job_id: str, flat: Sequence[str]) -> JobRecord:
    """Read a job's hash, as names and values in turn. Raises UnreadableJobError."""
    fields = dict(zip(flat[::2], flat[1::2], strict=True))

    def number(name: str) -> int | None:
        return int(fields[name]) if name in fields else None

    try:
        return JobRecord(
            job=ImageJob.model_validate_json(fields["spec"], extra="ignore"),
            state=JobState(fields["state"]),
            attempts=int(fields["attempts"]),
            crashes=int(fields["crashes"]),
            worker=fields.get("worker"),
            submitted_ms=int(fields["submitted_ms"]),
            started_ms=number("started_ms"),
            finished_ms=number("finished_ms"),
            progress=Progress.model_validate_json(fields["progress"], extra="ignore") if "progress" in fields else None,
            result=JobResult.model_validate_json(fields["result"], extra="ignore") if "result" in fields else None,
            error=JobError.model_validate_json(fields["error"], extra="ignore") if "error" in fields else None,
            cost_s=int(fields.get("cost_ms", 0)) / 1000,
            position=number("position"),
            start_in_s=int(fields["start_in_ms"]) / 1000 if "start_in_ms" in fields else None,
            expired_ms=number("expired_ms"),
        )
    except (KeyError, ValueError) as error:
        raise UnreadableJobError(job_id) from error


def parse_stats(reply: Any) -> QueueStats:
    """Read what `stats` replies."""
    in_progress, delayed, dead, lanes, workers, totals = reply
    return QueueStats(
        lanes={
            lane: LaneStats(
                queued=queued,
                oldest_s=oldest_ms / 1000,
                work_s=work_ms / 1000,
                pace_s=pace_ms / 1000,
                queued_by_priority={Priority.HIGH: high, Priority.NORMAL: normal, Priority.LOW: low},
                suspects=suspects,
                in_progress=held,
            )
            for lane, queued, oldest_ms, work_ms, pace_ms, high, normal, low, suspects, held in lanes
        },
        in_progress=in_progress,
        delayed=delayed,
        dead=dead,
        workers=tuple(_workers(workers)),
        totals=dict(zip(totals[::2], map(int, totals[1::2]), strict=True)),
    )


def _workers(messages: Sequence[str]) -> Iterator[WorkerInfo]:
    """Read heartbeats, leaving out those of another version that cannot be read."""
    for message in messages:
        try:
            yield WorkerInfo.model_validate_json(message, extra="ignore")
        except ValueError:
            # Another version's worker: the queue's counts matter more than its name.
            log.warning("worker_unreadable", info=message)
