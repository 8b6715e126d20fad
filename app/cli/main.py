"""The `darkroom` command."""

import asyncio
import os
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from app.catalog.catalog import Catalog
from app.cli.benchmarks import benchmark_module
from app.cli.chosen_models import chosen_models
from app.cli.errors import DemoError
from app.cli.generate import generate_picture
from app.cli.gpus import free_gpus
from app.cli.interrupts import interrupts
from app.cli.jobs import jobs_command
from app.cli.keys import keys_command
from app.cli.plain_words import in_plain_words
from app.cli.python_module import module_command, module_environment
from app.cli.stack import Stack, StackOptions


def main() -> None:
    cli = typer.Typer(
        name="darkroom",
        help="Pictures from prompts, through a queue: Flux and Stable Diffusion 3, batched step by step.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for command in (up, generate, demo, serve, worker):
        cli.command()(command)
    # What follows the name is the benchmark's own business, --help included.
    cli.command(context_settings={"allow_extra_args": True, "allow_interspersed_args": False})(bench)
    cli.add_typer(jobs_command(), name="jobs")
    cli.add_typer(keys_command(), name="keys")
    cli()


def up(
    host: Annotated[str, typer.Option(help="Address the gateway listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Its port; 0 finds a free one.")] = 8000,
    data_dir: Annotated[Path, typer.Option(help="Folder for the queue, the pictures and the logs.")] = Path(
        "darkroom-data"
    ),
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=FOLDER]",
            help="Model to serve, repeatable; FOLDER: its weights, as diffusers saves them. Default: the tiny ones.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=64,
            help="Worker processes; they share the cores, and the GPUs in turn. Default: one for each GPU, or one.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run everything on this machine: a queue, a gateway and workers, until Ctrl-C."""
    with in_plain_words():
        chosen = chosen_models(model or [], Catalog.load())
        entries = tuple(name if folder is None else f"{name}={folder}" for name, folder in chosen.items())
        gpus = free_gpus(os.environ)
        workers = workers or max(1, len(gpus))
        options = StackOptions(data_dir=data_dir, models=entries, host=host, port=port, workers=workers, gpus=gpus)
        with interrupts(), suppress(KeyboardInterrupt), ExitStack() as running:
            with Console(stderr=True).status(f"Starting Valkey, the gateway and {_count(workers)} ..."):
                stack = running.enter_context(Stack(options, say=_say))
            print(f"Darkroom is ready: {stack.url}  (models: {', '.join(chosen)}, data: {data_dir})", flush=True)
            stack.supervise()


def generate(
    prompt: Annotated[
        str,
        typer.Argument(
            help="What to draw; by the bundled models for instance: a small red ring on the left on a blue background.",
            show_default=False,
        ),
    ],
    model: Annotated[str | None, typer.Option(help="Default: the server's first.", show_default=False)] = None,
    steps: Annotated[
        int | None, typer.Option(help="Denoising steps. Default: the model's.", show_default=False)
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="How strictly to follow the prompt. Default: the model's.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="The same seed draws the same picture. Default: a random one.", show_default=False),
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="In pixels. Default: the model's.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A .png, .jpg or .webp file. Default: MODEL-SEED.png.", show_default=False),
    ] = None,
    url: Annotated[str, typer.Option(envvar="DARKROOM_URL", help="The running server.")] = "http://127.0.0.1:8000",
    api_key: Annotated[
        str | None, typer.Option(envvar="DARKROOM_API_KEY", help="Where the server asks for one.", show_default=False)
    ] = None,
) -> None:
    """Draw one picture with a running server, and save it."""
    request = {
        "prompt": prompt,
        "model": model,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "seed": seed,
        "size": size,
    }
    with in_plain_words():
        asyncio.run(generate_picture(url, request, output, api_key=api_key))


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("demo-output"),
) -> None:
    """Draw 14 pictures at once with the bundled models: starts everything, shows the timings, stops everything."""
    with in_plain_words(), interrupts():
        try:
            from app.cli.demo import run_demo  # needs Pillow, which whoever only sends requests may lack
        except ModuleNotFoundError as error:
            raise DemoError(f"{error}. The demo needs all of: pip install 'darkroom-server[embedded]'") from error
        run_demo(out, _say)


def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The benchmark; its own options follow.", show_default=False)],
) -> None:
    """Run a benchmark of this source checkout."""
    with in_plain_words():
        module = benchmark_module(name)
    _become(module, *context.args)


def serve() -> None:
    """Run the gateway alone. The environment configures it: DARKROOM_REDIS_URL, DARKROOM_STORE_URL, DARKROOM_MODELS."""
    _become("app")


def worker() -> None:
    """Run one worker alone. The environment configures it: DARKROOM_REDIS_URL, DARKROOM_STORE_URL, DARKROOM_MODELS."""
    _become("workers")


def _become(module: str, *arguments: str) -> NoReturn:
    # No child and no leash: this process becomes the one that was asked for.
    os.execve(sys.executable, [*module_command(module), *arguments], module_environment())  # noqa: S606


def _count(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
