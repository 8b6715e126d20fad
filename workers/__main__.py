"""`python -m workers`: settings -> pipelines -> Worker.run."""

import asyncio
import os
import sys
import time
from importlib.metadata import version

import diffusers.utils.logging
import structlog
import torch
import transformers.utils.logging
from prometheus_client import CollectorRegistry, disable_created_metrics, start_http_server
from pydantic import ValidationError

from app.catalog.catalog import Catalog, CatalogError
from app.jobs.environment import wrong_settings
from app.jobs.logs import configure_logs
from app.jobs.store import StoreError, open_store
from workers.device_memory import DeviceMemory
from workers.engine.calibration import calibrate
from workers.engine.cost import CostModel, StepTable
from workers.engine.pipeline import StepPipeline
from workers.engine.residency import Residency
from workers.metrics import WorkerMetrics
from workers.process import Loaded, build_worker, stop_signal
from workers.running_job import default_spec
from workers.settings import WorkerSettings
from workers.step_times.table import seed_table
from workers.worker import HungStepError

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
    stop = stop_signal()
    configure_logs(settings.log_level)
    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    device = _device(settings.device)
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more a counter, of no use to Prometheus
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry, settings.gpu_usd_per_hour)
    if device.type == "cuda":
        registry.register(DeviceMemory(device))
    metrics.build_info.labels(version("darkroom-server"), torch.__version__, diffusers.__version__).set(1)
    cards = Catalog.load().only(list(settings.model_folders))
    store = open_store(settings.store_url)
    try:
        loaded = await asyncio.to_thread(_load, settings, cards, device, metrics)
    except torch.OutOfMemoryError as error:
        raise SettingsError(
            "the device's memory is too small for these models; serve fewer, or let them take turns with"
            " DARKROOM_MEMORY_BUDGET_GIB"
        ) from error
    if settings.metrics_port:
        try:
            start_http_server(settings.metrics_port, settings.metrics_host, registry)
        except OSError as error:
            raise SettingsError(f"cannot serve metrics on port {settings.metrics_port}: {error.strerror}") from error
    worker = build_worker(settings, cards, loaded, store, metrics)
    log.info("worker_ready", worker_id=settings.worker_id, models=list(cards), device=str(device))
    await worker.run(stop)
    return 0


def _load(settings: WorkerSettings, cards: Catalog, device: torch.device, metrics: WorkerMetrics) -> Loaded:
    """Load every model and look at what it costs; with a memory budget each leaves the device for the next."""
    from workers.pipelines.load import load_pipeline, weights_revision  # after the libraries are quiet

    dtype = _dtype(settings.dtype, device)
    budget_bytes = None if settings.memory_budget_gib is None else round(settings.memory_budget_gib * 1024**3)
    cost = CostModel(measured_before(device, dtype), max_rows=settings.max_rows)
    pipelines: dict[str, StepPipeline] = {}
    for name, card in cards.items():
        started_s = time.perf_counter()
        pipeline = load_pipeline(card, settings.model_folders[name], device, dtype, parked=budget_bytes is not None)
        seconds = time.perf_counter() - started_s
        metrics.model_load_seconds.labels(name).observe(seconds)
        log.info("model_loaded", model=name, seconds=round(seconds, 2))
        if settings.calibration_s:
            pipeline.to_device()
            calibrate(pipeline, default_spec(card), cost, time.perf_counter, settings.max_rows, settings.calibration_s)
        if budget_bytes is not None:
            pipeline.to_host()
        pipelines[name] = pipeline
    sizes = {name: pipeline.weight_bytes for name, pipeline in pipelines.items()}
    try:
        residency = Residency(sizes, budget_bytes)
    except ValueError as error:
        raise SettingsError(f"DARKROOM_MEMORY_BUDGET_GIB is too small: {error}") from error
    revisions = {name: weights_revision(card, settings.model_folders[name]) for name, card in cards.items()}
    return Loaded(device, pipelines, residency, cost, revisions)


def measured_before(device: torch.device, dtype: torch.dtype) -> StepTable | None:
    """What steps took on such a device; None where it was never measured. The tables are of bfloat16."""
    if device.type != "cuda" or dtype is not torch.bfloat16:
        return None
    return seed_table(torch.cuda.get_device_name(device))


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
