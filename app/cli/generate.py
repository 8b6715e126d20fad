"""One picture from a running server."""

import asyncio
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from app.cli.errors import ServerError, UsageError
from app.cli.image_client import ImageClient, JobView

_POLL_EVERY_S = 0.2
_FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}


async def generate_picture(
    url: str, request: Mapping[str, object], output: Path | None, *, api_key: str | None = None
) -> None:
    """Ask, show the progress, and save; the file's ending says its format. Raises ServerError or UsageError.

    Canceling this cancels the job.
    """
    suffix = ".png" if output is None else output.suffix.lower()
    if suffix not in _FORMATS:
        raise UsageError(f"--output: {output} should end in one of {', '.join(_FORMATS)}")
    if output is not None and not output.parent.is_dir():
        raise UsageError(f"--output: there is no folder {output.parent}")
    async with ImageClient(url, api_key=api_key) as client:
        job = await client.submit({**request, "output_format": _FORMATS[suffix]})
        for advice in job.warnings:
            print(f"Note: {advice.message}", file=sys.stderr)
        try:
            job = await _watch(client, job)
        except asyncio.CancelledError:
            with suppress(ServerError):
                await client.cancel(job)
            raise
        if job.error is not None or not job.data:
            reason = job.error.message if job.error is not None else f"The job is {job.status}."
            raise ServerError(f"No picture from {url}: {reason}")
        picture = job.data[0]
        path = output or Path(f"{job.model}-{picture.seed}.png")
        data = await client.fetch(picture)
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UsageError(f"--output: cannot write {path}: {error.strerror}") from error
    print(f"{path}  ({job.model}, {picture.width}x{picture.height}, {picture.steps} steps, seed {picture.seed})")


async def _watch(client: ImageClient, job: JobView) -> JobView:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[stage]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(job.model, total=job.progress.total_steps, stage="queued")

        def show(job: JobView) -> None:
            progress.update(task, completed=job.progress.step, stage=describe(job))

        return await client.watch(job, show, every_s=_POLL_EVERY_S)


def describe(job: JobView) -> str:
    """Say in a few words how far a job is."""
    if job.status != "in_progress":
        return job.status
    if job.progress.stage == "denoise":
        return f"step {job.progress.step}/{job.progress.total_steps}"
    return job.progress.stage.replace("_", " ")
