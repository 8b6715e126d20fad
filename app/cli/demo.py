"""`darkroom demo`: many different requests at once through a stack of its own, and what became of each."""

import asyncio
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from app.cli.contact_sheet import NotThatPictureError, Print, contact_sheet, read_png
from app.cli.demo_requests import DEMO_REQUESTS, DemoRequest
from app.cli.errors import DemoError, ServerError
from app.cli.generate import describe
from app.cli.image_client import ImageClient, JobView
from app.cli.picture_check import find_missing
from app.cli.stack import Stack, StackOptions

_POLL_EVERY_S = 0.1
_GIVE_UP_S = 120.0
_WIDTH_WITHOUT_TERMINAL = 130


@dataclass(frozen=True, slots=True)
class _Outcome:
    """A finished request: its bytes, or why there are none. at_s: seconds after the requests were sent."""

    request: DemoRequest
    job: JobView | None
    data: bytes
    at_s: float
    trouble: str | None


def run_demo(out: Path, say: Callable[[str], None]) -> None:
    """Write NN-model-steps.png files and contact-sheet.png, and print a table. Raises CommandError."""
    started_s = time.monotonic()
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH_WITHOUT_TERMINAL)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DemoError(f"Cannot write to {out}: {error.strerror}. Choose another folder with --out.") from error
    models = tuple(dict.fromkeys(request.model for request in DEMO_REQUESTS))
    with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
        options = StackOptions(data_dir=Path(folder), models=models, port=0, ready_within_s=_GIVE_UP_S)
        console.print("Starting Valkey, the gateway and 1 worker ...")
        with Stack(options, say) as stack:
            ready_s = time.monotonic() - started_s
            console.print(f"Ready after {ready_s:.1f} s. Sending {len(DEMO_REQUESTS)} requests at once:\n")
            outcomes = asyncio.run(_develop_all(stack.url, console, within_s=_GIVE_UP_S - ready_s))
    files, bad_files = _save(outcomes, out)
    troubles = [*(outcome.trouble for outcome in outcomes if outcome.trouble), *bad_files]
    missing: dict[DemoRequest, list[str] | None] = {}
    not_compared: DemoError | None = None
    try:
        missing |= zip(files, find_missing([(file, request.prompt) for request, file in files.items()]), strict=True)
    except DemoError as error:
        not_compared = error
    console.print(_table(outcomes, missing))
    drawn_s = [outcome.at_s for outcome in outcomes if not outcome.trouble]
    if drawn_s:
        console.print(
            f"First picture {min(drawn_s):.1f} s after the requests were sent, all {len(drawn_s)} after"
            f" {max(drawn_s):.1f} s. From start to first picture {ready_s + min(drawn_s):.1f} s,"
            f" everything {time.monotonic() - started_s:.1f} s."
        )
    if missing:
        compared = [names for names in missing.values() if names is not None]
        right = sum(not names for names in compared)
        console.print(f"{right} of {len(compared)} pictures show all that their prompts state, read from their pixels.")
    if troubles:
        raise DemoError("\n".join([f"{len(troubles)} of {len(outcomes)} requests went wrong:", *troubles]))
    console.print(f"The pictures are in {out}, all together in {out / 'contact-sheet.png'}")
    if not_compared is not None:
        raise not_compared


async def _develop_all(url: str, console: Console, *, within_s: float) -> list[_Outcome]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[stage]}"),
    )
    try:
        async with asyncio.timeout(within_s), ImageClient(url, trust_env=False) as client:
            with Progress(*columns, console=console) as progress:
                tasks = [
                    (request, progress.add_task(_bar_label(request), total=request.num_inference_steps, stage="queued"))
                    for request in DEMO_REQUESTS
                ]
                sent_s = time.monotonic()
                return await asyncio.gather(
                    *(_develop(client, request, progress, task, sent_s) for request, task in tasks)
                )
    except TimeoutError:
        raise DemoError(
            f"Not all pictures were done {_GIVE_UP_S:g} seconds after the start, so the demo gave up."
            " This machine may be too slow, or busy with something else."
        ) from None


async def _develop(
    client: ImageClient, request: DemoRequest, progress: Progress, task: TaskID, sent_s: float
) -> _Outcome:
    def show(job: JobView) -> None:
        progress.update(task, completed=job.progress.step, stage=describe(job))

    job = None
    try:
        job = await client.submit(request.body())
        job = await client.watch(job, show, every_s=_POLL_EVERY_S)
        if not job.data:
            reason = job.error.message if job.error is not None else f"the job is {job.status}"
            raise ServerError(reason)
        data = await client.fetch(job.data[0])
    except ServerError as error:
        progress.update(task, stage="failed")
        return _Outcome(request, job, b"", time.monotonic() - sent_s, f"{request.label}: {error}")
    return _Outcome(request, job, data, time.monotonic() - sent_s, None)


def _save(outcomes: Sequence[_Outcome], out: Path) -> tuple[dict[DemoRequest, Path], list[str]]:
    """Write what there is; give the files, and what was wrong with the others."""
    files: dict[DemoRequest, Path] = {}
    prints, troubles = [], []
    for number, outcome in enumerate(outcomes, 1):
        request = outcome.request
        if outcome.trouble:
            continue
        name = f"{number:02}-{request.model}-{request.num_inference_steps}.png"
        try:
            picture = read_png(outcome.data, request.width, request.height)
        except NotThatPictureError as error:
            troubles.append(f"{request.label}: the server gave {error}")
            continue
        files[request] = out / name
        files[request].write_bytes(outcome.data)
        prints.append(Print(picture, f"{number}. {request.label}", request.prompt))
    if prints:
        contact_sheet(prints).save(out / "contact-sheet.png")
    return files, troubles


def _table(outcomes: Sequence[_Outcome], missing: Mapping[DemoRequest, Sequence[str] | None]) -> Table:
    table = Table(
        caption="Times in seconds. batch: the most rows that shared one step with this request's. not shown: what of"
        " the prompt is not to be seen in the picture; ? where nobody looked."
    )
    table.add_column("")
    table.add_column("model")
    for heading in ("size", "seed", "steps", "guidance", "queue", "text", "denoise", "decode", "total", "batch"):
        table.add_column(heading, justify="right")
    table.add_column("not shown")
    for number, outcome in enumerate(outcomes, 1):
        request, job = outcome.request, outcome.job
        asked = (
            f"{request.width}x{request.height}",
            str(request.seed),
            str(request.num_inference_steps),
            f"{request.guidance_scale:g}",
        )
        measured = _measured(job) if job is not None else ()
        names = missing.get(request)
        unseen = "?" if names is None else ", ".join(names)
        table.add_row(f"{number:02}", request.model, *asked, *(measured or ("",) * 6), unseen)
    return table


def _measured(job: JobView) -> list[str]:
    timings = job.timings
    seconds = (
        timings.queue_seconds,
        timings.text_encode_seconds,
        timings.denoise_seconds,
        timings.vae_decode_seconds,
        timings.total_seconds,
    )
    batch = job.parameters.largest_batch
    return [*("" if value is None else f"{value:.2f}" for value in seconds), "" if batch is None else str(batch)]


def _bar_label(request: DemoRequest) -> str:
    prompt = request.prompt if len(request.prompt) <= 36 else f"{request.prompt[:35].rstrip()}…"
    return f"{request.model:<17}  {request.num_inference_steps:>2} steps  {prompt:<36}"
