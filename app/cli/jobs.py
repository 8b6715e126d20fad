"""`darkroom jobs`: what an operator does about jobs, in the queue itself."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer
from redis.asyncio import Redis
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.cli.errors import UsageError
from app.cli.plain_words import in_plain_words
from app.cli.queue_server import DATA_DIR, DataDirOption, RedisUrlOption, with_server
from app.jobs.errors import JobNotFoundError, UnreadableJobError
from app.jobs.queue import JobQueue
from app.jobs.schema import JobRecord
from app.jobs.upkeep import Purged, Upkeep

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", show_default=False)]
All = Annotated[bool, typer.Option("--all", help="Every dead job.")]


def jobs_command() -> typer.Typer:
    dead = typer.Typer(help="Jobs given up after their workers died again and again.", no_args_is_help=True)
    dead.command("list")(dead_list)
    dead.command("retry")(dead_retry)
    dead.command("purge")(dead_purge)
    jobs = typer.Typer(help="Look after the queue's jobs.", no_args_is_help=True)
    jobs.add_typer(dead, name="dead")
    jobs.command("weigh")(weigh)
    return jobs


def dead_list(data_dir: DataDirOption = DATA_DIR, redis_url: RedisUrlOption = None) -> None:
    """Show the dead, the latest first: their prompts or sizes may be what kills workers."""
    with in_plain_words():
        records = with_server(redis_url, data_dir, _dead_records)
        if records:
            Console().print(_table(records))
        else:
            print("There are no dead jobs.")


def dead_retry(
    ids: Ids = None, every: All = False, data_dir: DataDirOption = DATA_DIR, redis_url: RedisUrlOption = None
) -> None:
    """Put dead jobs back in line. Each runs alone on a worker, so that it does no harm to others."""

    async def retry(redis: Redis) -> int:
        upkeep = Upkeep(redis)
        return await upkeep.revive(ids or list(dict(await upkeep.dead())))

    with in_plain_words():
        _check(ids, every=every)
        print(f"{_jobs(with_server(redis_url, data_dir, retry))} back in line.")


def dead_purge(
    ids: Ids = None, every: All = False, data_dir: DataDirOption = DATA_DIR, redis_url: RedisUrlOption = None
) -> None:
    """Forget dead jobs for good: whoever asks for one is told that there is no such job."""

    async def purge(redis: Redis) -> int:
        upkeep = Upkeep(redis)
        tenant_of = dict(await upkeep.dead())
        chosen = [job_id for job_id in ids or tenant_of if job_id in tenant_of]
        return sum([(await upkeep.purge(tenant_of[job_id], [job_id])) == [Purged.OK] for job_id in chosen])

    with in_plain_words():
        _check(ids, every=every)
        print(f"{_jobs(with_server(redis_url, data_dir, purge))} forgotten.")


def weigh(
    tenant: Annotated[str, typer.Argument(show_default=False)],
    weight: Annotated[float, typer.Argument(help="1 is everybody's; 2 gets twice as much.", show_default=False)],
    data_dir: DataDirOption = DATA_DIR,
    redis_url: RedisUrlOption = None,
) -> None:
    """Give a tenant more or less of the workers' time than others, while all of them wait."""
    with in_plain_words():
        try:
            with_server(redis_url, data_dir, lambda redis: Upkeep(redis).weigh(tenant, weight))
        except ValueError as error:
            raise UsageError(f"{error}.") from error
        print(f"{tenant} has a weight of {weight:g} from now on.")


async def _dead_records(redis: Redis) -> list[JobRecord]:
    queue, records = JobQueue(redis), []
    for job_id, tenant in await Upkeep(redis).dead():
        try:
            records.append(await queue.read(tenant, job_id))
        except (JobNotFoundError, UnreadableJobError):  # purged meanwhile, or another version's
            continue
    return records


def _table(records: Sequence[JobRecord]) -> Table:
    table = Table("id", "tenant", "model", "size", "steps", "workers lost", "given up (UTC)", "prompt")
    for record in records:
        job = record.job
        given_up = datetime.fromtimestamp((record.finished_ms or 0) / 1000, UTC)
        table.add_row(
            job.id,
            escape(job.tenant),
            job.model,
            f"{job.width}x{job.height}",
            str(job.num_inference_steps),
            str(record.crashes),
            f"{given_up:%Y-%m-%d %H:%M:%S}",
            escape(job.prompt[:60]),
        )
    return table


def _check(ids: list[str] | None, *, every: bool) -> None:
    if bool(ids) == every:
        raise UsageError("name the jobs, as `darkroom jobs dead list` shows them, or say --all")


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"
