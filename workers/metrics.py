"""What a worker measures, for Prometheus. Built on a registry that is handed in."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from workers.engine.cost import Stage
from workers.engine.report import FailureReason, Report

LATENCY_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480)
STEP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class WorkerMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.image_steps = Histogram(
            "darkroom_image_steps",
            "Denoising steps of each finished image",
            ["model"],
            buckets=(1, 2, 4, 8, 12, 20, 28, 40, 50),
            registry=registry,
        )
        self.images_generated = Counter(
            "darkroom_images_generated", "Images finished and stored", ["model"], registry=registry
        )
        self.jobs_finished = Counter(
            "darkroom_jobs_finished",
            "Attempts at a job that ended on this worker",
            ["model", "status", "code"],
            registry=registry,
        )
        self.job_inference_seconds = Histogram(
            "darkroom_job_inference_seconds",
            "Seconds from a job's claim to its completion",
            ["model"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "darkroom_stage_seconds",
            "Seconds each image spent in each stage",
            ["model", "stage"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.denoise_steps = Counter(
            "darkroom_denoise_steps", "Denoising steps taken, one a row", ["model"], registry=registry
        )
        self.denoise_step_seconds = Histogram(
            "darkroom_denoise_step_seconds",
            "Seconds of one step of a batch",
            ["model"],
            buckets=STEP_BUCKETS,
            registry=registry,
        )
        self.batch_rows = Histogram(
            "darkroom_batch_rows",
            "Rows that shared a step",
            ["model"],
            buckets=(1, 2, 4, 8, 16, 32),
            registry=registry,
        )
        self.batch_splits = Counter(
            "darkroom_batch_splits", "Batches halved to find who spoils them", ["reason"], registry=registry
        )
        self.invalid_outputs = Counter(
            "darkroom_invalid_outputs", "Images given up for values that are no numbers", ["model"], registry=registry
        )
        self.repaired_steps = Counter(
            "darkroom_repaired_steps", "Steps that gave numbers only in float32", registry=registry
        )
        self.wasted_steps = Counter(
            "darkroom_wasted_steps", "Denoising steps of images that came to nothing", ["reason"], registry=registry
        )
        self.prompt_cache_hits = Counter(
            "darkroom_prompt_cache_hits", "Prompts whose encoding was still there", registry=registry
        )
        self.prompt_cache_misses = Counter("darkroom_prompt_cache_misses", "Prompts encoded", registry=registry)
        self.prompt_cache_bytes = Gauge(
            "darkroom_prompt_cache_bytes", "Encoded prompts kept on the device", registry=registry
        )
        self.checkpoints_written = Counter(
            "darkroom_checkpoints_written", "Half-developed images kept in the store", registry=registry
        )
        self.checkpoint_bytes = Counter("darkroom_checkpoint_bytes", "Bytes of checkpoints written", registry=registry)
        self.jobs_resumed = Counter(
            "darkroom_jobs_resumed", "Images that went on from a checkpoint of an earlier attempt", registry=registry
        )
        self.model_load_seconds = Gauge(
            "darkroom_model_load_seconds", "Seconds it took to load the model", ["model"], registry=registry
        )
        self.jobs_in_progress = Gauge("darkroom_worker_jobs_in_progress", "Jobs this worker holds", registry=registry)
        self.build_info = Gauge(
            "darkroom_build_info", "Versions, as labels", ["version", "torch", "diffusers"], registry=registry
        )

    def observe(self, report: Report) -> None:
        """Count what the engine did in one call."""
        for worked in report.worked:
            if worked.stage is Stage.DENOISE:
                self.batch_rows.labels(worked.key.model).observe(worked.rows)
                self.denoise_steps.labels(worked.key.model).inc(worked.rows)
                self.denoise_step_seconds.labels(worked.key.model).observe(worked.seconds)
            elif worked.stage is Stage.TEXT_ENCODE:
                self.prompt_cache_misses.inc()
        self.prompt_cache_hits.inc(report.prompt_hits)
        for model, seconds in report.moves.items():
            self.stage_seconds.labels(model, "load").observe(seconds)
        self.jobs_resumed.inc(len(report.resumed))
        for reason in report.splits:
            self.batch_splits.labels(reason).inc()
        self.repaired_steps.inc(report.repaired)
        for failed in report.failed:
            if failed.reason is FailureReason.INVALID_OUTPUT:
                self.invalid_outputs.labels(failed.request.spec.model).inc()
