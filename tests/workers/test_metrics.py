"""What a worker counts, under labels that no client can multiply."""

import itertools

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from app.jobs.queue import Claim
from app.jobs.schema import ErrorCode
from app.jobs.schema import Stage as JobStage
from tests.conftest import make_job
from workers.engine.cost import Stage
from workers.engine.report import Failed, FailureReason, Report, Worked
from workers.engine.request import BatchKey
from workers.metric_labels import ROWS_BUCKETS, SIZE_BUCKETS, Waste, rows_bucket, size_bucket
from workers.metrics import WorkerMetrics
from workers.running_job import RunningJob, to_requests

MODELS = ("tiny-sd3", "tiny-flux-dev", "tiny-flux-schnell")


@pytest.mark.parametrize(
    ("height", "width", "bucket"),
    [
        (16, 16, "64"),
        (64, 64, "64"),
        (128, 192, "128"),
        (192, 192, "256"),
        (1216, 832, "1024"),
        (1024, 1024, "1024"),
        (768, 1344, "1024"),
        (1200, 1200, "1024"),
        (1300, 1300, "1536"),
        (4096, 4096, "2048"),
    ],
)
def test_a_size_is_in_the_bucket_of_the_square_that_is_nearest(height: int, width: int, bucket: str) -> None:
    assert size_bucket(height, width) == size_bucket(width, height) == bucket


def test_rows_are_in_the_first_bucket_that_holds_them() -> None:
    assert [rows_bucket(rows) for rows in (1, 2, 3, 4, 5, 8, 9, 1000)] == (
        ["1", "2", "4", "4", "8", "8", "more", "more"]
    )


def denoised(model: str = "tiny-sd3", side: int = 64, rows: int = 2, seconds: float = 1.0, images: int = 1) -> Worked:
    return Worked(Stage.DENOISE, BatchKey(model, side, side, 32), rows, seconds, images)


def running_job(**changes: object) -> RunningJob:
    claim = Claim(make_job(**changes), "a token", age_s=3.0, started_before=False)
    job = RunningJob(claim, to_requests(claim, 100.0), claimed_at_s=100.0, confirmed_at_s=100.0)
    for request in job.requests:
        request.admitted_at_s, request.promised_s, request.drawn_at_s = 101.0, 2.0, 102.0
        request.step_index = request.num_inference_steps
    return job


def test_what_the_device_did_is_counted_and_paid_for_by_model() -> None:
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry, usd_per_hour=3.6)
    encoded = Worked(Stage.TEXT_ENCODE, BatchKey("tiny-sd3", 64, 64, 32), 1, 0.5, 1)
    decoded = Worked(Stage.VAE_DECODE, BatchKey("tiny-flux-dev", 64, 64, 32), 2, 0.25, 2)
    metrics.observe(Report(worked=[encoded, denoised(rows=3, images=2), decoded]))

    def sample(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"darkroom_{name}", labels)

    assert sample("gpu_seconds_total", model="tiny-sd3") == 1.5
    assert sample("gpu_seconds_total", model="tiny-flux-dev") == 0.25
    assert sample("cost_usd_total", model="tiny-sd3") == pytest.approx(1.5 * 3.6 / 3600)
    assert sample("denoise_steps_total", model="tiny-sd3") == 2
    assert sample("batch_rows_sum", model="tiny-sd3") == 3
    assert sample("denoise_step_seconds_count", model="tiny-sd3", size_bucket="64", rows="4") == 1
    assert sample("prompt_cache_misses_total") == 1


def test_without_a_price_there_is_no_cost() -> None:
    registry = CollectorRegistry()
    WorkerMetrics(registry).observe(Report(worked=[denoised()]))
    assert b"cost_usd" not in generate_latest(registry)
    assert b"gpu_seconds" in generate_latest(registry)


def test_a_completed_job_is_measured_from_its_submission() -> None:
    registry = CollectorRegistry()
    WorkerMetrics(registry).completed(running_job(n=2, width=64, height=64), now_s=104.0)

    def total(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"darkroom_{name}", {"model": "tiny-sd3", **labels})

    assert (total("job_queue_seconds_sum"), total("job_inference_seconds_sum")) == (3, 4)
    assert total("job_e2e_seconds_sum") == 7
    assert total("job_eta_error_ratio_sum") == 0.5, "two seconds were expected, it took one"
    assert total("images_generated_total", size_bucket="64") == 2
    assert registry.get_sample_value("darkroom_pixels_generated_total") == 2 * 64 * 64
    assert (total("image_steps_count"), total("image_steps_sum")) == (2, 8)


def drive(metrics: WorkerMetrics, sides: tuple[int, ...], rows: tuple[int, ...]) -> None:
    """Every label that a worker of three models can set."""
    for model, side, row_count in itertools.product(MODELS, sides, rows):
        metrics.observe(Report(worked=[denoised(model, side, row_count)], moves={model: 1.0}))
        metrics.completed(running_job(model=model, width=side, height=side), 110.0)
    for model in MODELS:
        job = running_job(model=model)
        metrics.jobs_in_progress.labels(model).set(1)
        metrics.model_load_seconds.labels(model).observe(1.0)
        metrics.ended(job.job, "canceled")
        for code in ErrorCode:
            metrics.ended(job.job, "failed", code)
        for stage in (JobStage.TEXT_ENCODE, JobStage.DENOISE, JobStage.VAE_DECODE):
            metrics.stage_seconds.labels(model, stage).observe(1.0)
        for stage in (JobStage.IMAGE_ENCODE, JobStage.STORE):
            metrics.stage_seconds.labels(model, stage).observe(1.0)
        for waste in Waste:
            metrics.wasted(job, waste)
        failures = [Failed(job.requests[0], reason, None) for reason in FailureReason]
        metrics.observe(Report(splits=list(FailureReason), failed=failures, repaired=1, prompt_hits=1))
    for code in ErrorCode:
        metrics.job_retries.labels(code).inc()
    metrics.build_info.labels("1", "2", "3").set(1)


def series(registry: CollectorRegistry) -> int:
    """As a worker exports them: without the times at which each was first set."""
    return sum(not sample.name.endswith("_created") for family in registry.collect() for sample in family.samples)


def test_no_client_can_multiply_the_series() -> None:
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry, usd_per_hour=1.0)
    drive(metrics, SIZE_BUCKETS, (*ROWS_BUCKETS, 9))
    before = series(registry)
    drive(metrics, (16, 80, 300, 1008, 4096), (3, 7, 33, 1024))
    assert series(registry) == before
    assert before < 2700


def test_every_name_has_the_projects_prefix() -> None:
    registry = CollectorRegistry()
    drive(WorkerMetrics(registry), (64,), (1,))
    assert all(line.startswith(("#", "darkroom_")) for line in generate_latest(registry).decode().splitlines())
