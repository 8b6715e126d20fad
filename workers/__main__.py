"""`python -m workers`: settings -> pipelines -> Worker.run."""

import asyncio
import os
import signal
import sys
import time
from importlib.metadata import version

import diffusers.utils.logging
import structlog
import torch
import transformers.utils.logging
from prometheus_client import CollectorRegistry, start_http_server
from pydantic import ValidationError

from app.catalog.catalog import Catalog, CatalogError
from app.jobs.environment import wrong_settings
from app.jobs.logs import configure_logs
from app.jobs.queue import JobQueue
from app.jobs.scripts import connect
from app.jobs.store import StoreError, open_store
from workers.engine.engine import Engine
from workers.engine.pipeline import StepPipeline
from workers.engine.scheduler import Scheduler
from workers.metrics import WorkerMetrics
from workers.settings import WorkerSettings
from workers.worker import HungStepError, Worker, WorkerOptions

log = structlog.get_logger()


class SettingsError(Exception):
    """A setting that only this machine can find wrong."""


def main() -> int:
    # Both libraries would put prompts and progress bars into the log.
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    from workers.pipelines.load import ModelLoadError  # after the libraries are quiet

    try:
        return asyncio.run(_serve(WorkerSettings()))
    except ValidationError as error:
        sys.stderr.writelines(f"worker: {problem}\n" for problem in wrong_settings(error))
        return 2
    except (CatalogError, ModelLoadError, StoreError, SettingsError) as error:
        sys.stderr.write(f"worker: {error}\n")
        return 2
    except HungStepError as error:
        sys.stderr.write(f"worker: {error}; exiting so that a new process can take over\n")
        os._exit(1)  # the engine's thread will never return


async def _serve(settings: WorkerSettings) -> int:
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    configure_logs(settings.log_level)
    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    device = _device(settings.device)
    redis = connect(settings.redis_url)
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry)
    metrics.build_info.labels(version("darkroom-server"), torch.__version__, diffusers.__version__).set(1)
    cards = Catalog.load().only(list(settings.model_folders))
    store = open_store(settings.store_url)
    pipelines = await asyncio.to_thread(_load, settings, cards, device, metrics)
    if settings.metrics_port:
        try:
            start_http_server(settings.metrics_port, settings.metrics_host, registry)
        except OSError as error:
            raise SettingsError(f"cannot serve metrics on port {settings.metrics_port}: {error.strerror}") from error
    worker = Worker(
        JobQueue(redis, lease_s=settings.lease_s),
        store,
        Engine(pipelines, Scheduler(settings.max_rows), time.perf_counter),
        cards,
        metrics,
        WorkerOptions(
            worker_id=settings.worker_id,
            version=version("darkroom-server"),
            device=str(device),
            max_images=settings.max_images,
            lease_s=settings.lease_s,
            step_timeout_s=settings.step_timeout_s,
            drain_timeout_s=settings.drain_timeout_s,
            encode_threads=settings.encode_threads,
        ),
    )
    log.info("worker_ready", worker_id=settings.worker_id, models=list(cards), device=str(device))
    await worker.run(stop)
    return 0


def _load(
    settings: WorkerSettings, cards: Catalog, device: torch.device, metrics: WorkerMetrics
) -> dict[str, StepPipeline]:
    from workers.pipelines.load import load_pipeline

    dtype = _dtype(settings.dtype, device)
    pipelines = {}
    for name, card in cards.items():
        started_s = time.perf_counter()
        pipelines[name] = load_pipeline(card, settings.model_folders[name], device, dtype)
        seconds = time.perf_counter() - started_s
        metrics.model_load_seconds.labels(name).set(seconds)
        log.info("model_loaded", model=name, seconds=round(seconds, 2))
    return pipelines


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(f"DARKROOM_DEVICE is {name!r}, which this machine cannot use") from error
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    return dtypes[name]


if __name__ == "__main__":
    sys.exit(main())
