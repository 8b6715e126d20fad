"""Records as the server holds them: flat hashes of strings and JSON."""

from collections.abc import Iterator, Sequence

import structlog

from app.jobs.errors import UnreadableJobError
from app.jobs.schema import ImageJob, JobError, JobRecord, JobResult, JobState, Progress, WorkerInfo

log = structlog.get_logger()


def parse_record(job_id: str, flat: Sequence[str]) -> JobRecord:
    """Read a job's hash, as names and values in turn. Raises UnreadableJobError."""
    fields = dict(zip(flat[::2], flat[1::2], strict=True))

    def number(name: str) -> int | None:
        return int(fields[name]) if name in fields else None

    try:
        return JobRecord(
            job=ImageJob.model_validate_json(fields["spec"]),
            state=JobState(fields["state"]),
            attempts=int(fields["attempts"]),
            crashes=int(fields["crashes"]),
            worker=fields.get("worker"),
            submitted_ms=int(fields["submitted_ms"]),
            started_ms=number("started_ms"),
            finished_ms=number("finished_ms"),
            progress=Progress.model_validate_json(fields["progress"]) if "progress" in fields else None,
            result=JobResult.model_validate_json(fields["result"]) if "result" in fields else None,
            error=JobError.model_validate_json(fields["error"]) if "error" in fields else None,
            position=number("position"),
        )
    except (KeyError, ValueError) as error:
        raise UnreadableJobError(job_id) from error


def parse_workers(messages: Sequence[str]) -> Iterator[WorkerInfo]:
    """Read heartbeats, leaving out those of another version."""
    for message in messages:
        try:
            yield WorkerInfo.model_validate_json(message)
        except ValueError:
            # Another version's worker: the queue's counts matter more than its name.
            log.warning("worker_unreadable", info=message)
