"""What a worker measures, for Prometheus. Built on a registry that is handed in.

Counters of jobs say what the queue has heard: a job that another worker took over, or that will be tried again, has not
finished. So they agree with what clients see, and over all workers

    denoise_steps = image_steps of completed jobs + wasted_steps + steps of the images in flight

as long as no lease ends: what a dead worker had done since it last told the queue is counted by nobody.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app.jobs.queue import Tick
from app.jobs.schema import ImageJob
from workers.engine.cost import Stage
from workers.engine.report import FailureReason, Report
from workers.metric_labels import Waste, rows_bucket, size_bucket
from workers.running_job import RunningJob

LATENCY_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480)
STEP_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.5, 1, 3, 10, 60)
BATCH_ROWS_BUCKETS = (1, 2, 4, 8, 16, 32)
RATIO_BUCKETS = (0.1, 0.25, 0.5, 0.67, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 4, 10)
IMAGE_STEPS_BUCKETS = (1, 2, 4, 8, 12, 20, 28, 40, 50)


class WorkerMetrics:
    """usd_per_hour: of the device; what work cost is not exported where that is 0."""

    def __init__(self, registry: CollectorRegistry, usd_per_hour: float = 0.0) -> None:
        def counter(name: str, documentation: str, *labels: str) -> Counter:
            return Counter(f"darkroom_{name}", documentation, labels, registry=registry)

        def gauge(name: str, documentation: str, *labels: str) -> Gauge:
            return Gauge(f"darkroom_{name}", documentation, labels, registry=registry)

        def histogram(name: str, documentation: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"darkroom_{name}", documentation, labels, buckets=buckets, registry=registry)

        # Jobs. Their seconds are of completed ones: those in the queue and those in inference are the whole.
        self.jobs_finished = counter("jobs_finished", "Jobs that ended here", "model", "status", "code")
        self.job_queue_seconds = histogram(
            "job_queue_seconds", "Seconds from a job's submission to its last claim", LATENCY_BUCKETS, "model"
        )
        self.job_inference_seconds = histogram(
            "job_inference_seconds", "Seconds from a job's claim to its completion", LATENCY_BUCKETS, "model"
        )
        self.job_e2e_seconds = histogram(
            "job_e2e_seconds", "Seconds from a job's submission to its completion", LATENCY_BUCKETS, "model"
        )
        self.job_eta_error_ratio = histogram(
            "job_eta_error_ratio",
            "Seconds that a job took from its admission to its last pixels, over those expected when it was admitted",
            RATIO_BUCKETS,
            "model",
        )
        self.job_retries = counter("job_retries", "Attempts that failed and are to be repeated", "reason")
        self.jobs_resumed = counter("jobs_resumed", "Jobs that went on from checkpoints of an earlier attempt")
        self.jobs_reclaimed = counter("jobs_reclaimed", "Jobs taken back from workers whose lease had ended")
        self.completions_fenced = counter("completions_fenced", "Finished jobs that had become another worker's")
        self.jobs_in_progress = gauge("worker_jobs_in_progress", "Jobs that this worker holds", "model")

        # Images of completed jobs.
        self.images_generated = counter("images_generated", "Images of completed jobs", "model", "size_bucket")
        self.pixels_generated = counter("pixels_generated", "Pixels of completed jobs' images")
        self.image_steps = histogram(
            "image_steps", "Denoising steps of each image of a completed job", IMAGE_STEPS_BUCKETS, "model"
        )

        # Work.
        self.stage_seconds = histogram(
            "stage_seconds",
            "Seconds that an image, or a model's move, spent in a stage",
            LATENCY_BUCKETS,
            "model",
            "stage",
        )
        self.denoise_steps = counter("denoise_steps", "Denoising steps that images took", "model")
        self.wasted_steps = counter("wasted_steps", "Denoising steps that came to nothing", "reason")
        self.denoise_step_seconds = histogram(
            "denoise_step_seconds", "Seconds of a step of a batch", STEP_BUCKETS, "model", "size_bucket", "rows"
        )
        self.batch_rows = histogram("batch_rows", "Rows that shared a step", BATCH_ROWS_BUCKETS, "model")
        self.batch_splits = counter("batch_splits", "Batches halved to find who spoils them", "reason")
        self.invalid_outputs = counter("invalid_outputs", "Images given up for values that are no numbers")
        self.repaired_steps = counter("repaired_steps", "Steps that gave numbers only in float32")
        self.prompt_cache_hits = counter("prompt_cache_hits", "Prompts whose encoding was still there")
        self.prompt_cache_misses = counter("prompt_cache_misses", "Prompts encoded")
        self.prompt_cache_bytes = gauge("prompt_cache_bytes", "Encoded prompts kept on the device")
        self.checkpoints_written = counter("checkpoints_written", "Half-developed images kept in the store")
        self.checkpoint_bytes = counter("checkpoint_bytes", "Bytes of checkpoints written")

        # The worker and its device.
        self.slots_idle_seconds = counter(
            "slots_idle_seconds", "Seconds of room for an image in flight (DARKROOM_MAX_IMAGES) that none was in"
        )
        self.gpu_seconds = counter("gpu_seconds", "Seconds that the device encoded, denoised and decoded", "model")
        self._usd_per_s = usd_per_hour / 3600
        self._cost_usd = (
            counter("cost_usd", "What those seconds cost, in US dollars", "model") if usd_per_hour else None
        )
        self.model_load_seconds = histogram(
            "model_load_seconds", "Seconds it took to load a model at the start", LATENCY_BUCKETS, "model"
        )
        self.worker_up = gauge("worker_up", "1 while the worker claims jobs")
        self.build_info = gauge("build_info", "Versions, as labels", "version", "torch", "diffusers")

    def observe(self, report: Report) -> None:
        """Count what the engine did in one call."""
        for worked in report.worked:
            key = worked.key
            self.gpu_seconds.labels(key.model).inc(worked.seconds)
            if self._cost_usd is not None:
                self._cost_usd.labels(key.model).inc(worked.seconds * self._usd_per_s)
            if worked.stage is Stage.DENOISE:
                self.batch_rows.labels(key.model).observe(worked.rows)
                self.denoise_steps.labels(key.model).inc(worked.images)
                self.denoise_step_seconds.labels(
                    key.model, size_bucket(key.height, key.width), rows_bucket(worked.rows)
                ).observe(worked.seconds)
            elif worked.stage is Stage.TEXT_ENCODE:
                self.prompt_cache_misses.inc()
        self.prompt_cache_hits.inc(report.prompt_hits)
        for model, seconds in report.moves.items():
            self.stage_seconds.labels(model, "load").observe(seconds)
        for reason in report.splits:
            self.batch_splits.labels(reason).inc()
        self.repaired_steps.inc(report.repaired)
        for failed in report.failed:
            if failed.reason is FailureReason.INVALID_OUTPUT:
                self.invalid_outputs.inc()

    def completed(self, job: RunningJob, now_s: float) -> None:
        """Count a job whose pictures the queue shows from now on. now_s: on the clock of its claim."""
        spec = job.job
        inference_s = now_s - job.claimed_at_s
        self.jobs_finished.labels(spec.model, "completed", "").inc()
        self.job_queue_seconds.labels(spec.model).observe(job.queued_s)
        self.job_inference_seconds.labels(spec.model).observe(inference_s)
        self.job_e2e_seconds.labels(spec.model).observe(job.queued_s + inference_s)
        self.job_eta_error_ratio.labels(spec.model).observe(job.eta_error_ratio)
        self.images_generated.labels(spec.model, size_bucket(spec.height, spec.width)).inc(spec.n)
        self.pixels_generated.inc(spec.n * spec.height * spec.width)
        for request in job.requests:
            self.image_steps.labels(spec.model).observe(request.step_index)

    def ended(self, job: ImageJob, status: str, code: str = "") -> None:
        """Count a job that ended without pictures: canceled or failed."""
        self.jobs_finished.labels(job.model, status, code).inc()

    def ticked(self, tick: Tick) -> None:
        """Count what a tick of this worker moved."""
        self.jobs_reclaimed.inc(tick.requeued)
        for labels in tick.finished():
            self.jobs_finished.labels(*labels).inc()

    def wasted(self, job: RunningJob, waste: Waste) -> None:
        """Count the steps of a job that is over, or of this attempt those that a next one must take again.

        Of a fenced attempt the next one knows, from the queue, what it must take again: only what the queue has not
        heard of is counted here.
        """
        match waste:
            case Waste.CANCELED | Waste.FAILED:
                steps = job.steps_taken
            case Waste.RESTARTED:
                steps = job.steps_unsaved
            case Waste.FENCED:
                steps = job.steps_untold
        self.wasted_steps.labels(waste).inc(steps)
