"""The way out: pixels become files, files become bytes in the store, and the queue hears the last word."""

import asyncio
import hashlib
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog
from torch import Tensor

from app.catalog.catalog import ModelCard
from app.jobs.errors import QueueError
from app.jobs.queue import JobQueue, Verdict
from app.jobs.schema import TERMINAL_STATES, ErrorCode, ImageFile, JobError, Stage
from app.jobs.store import ImageStore, StoreError, result_path
from workers.engine.report import Drawn, Failed, FailureReason
from workers.images import encode_image
from workers.infotext import infotext
from workers.metric_labels import Waste
from workers.metrics import WorkerMetrics
from workers.running_job import RunningJob

log = structlog.get_logger()

_ASK_AGAIN_S = 0.5
_LONGEST_PAUSE_S = 5.0

INTERNAL_ERROR = JobError(
    code=ErrorCode.INTERNAL_ERROR, message="The worker failed while drawing this image.", retryable=False
)
STORAGE_FAILED = JobError(
    code=ErrorCode.STORAGE_FAILED,
    message="The picture was drawn, but the image store could not keep it.",
    retryable=True,
)
INVALID_OUTPUT = JobError(
    code=ErrorCode.INVALID_OUTPUT,
    message="The model's output was not a number; another seed, fewer steps or a lower guidance may help.",
    retryable=False,
)
# What does not change a picture must not change its bytes.
_NOT_DRAWN = {
    "id",
    "tenant",
    "n",
    "metadata",
    "output_format",
    "output_compression",
    "priority",
    "deadline_s",
    "warnings",
    "webhook_url",
    "webhook_events",
}


def job_error(failed: Failed) -> JobError:
    """Tell the author what went wrong and, where memory was too small, a size that fits."""
    match failed.reason:
        case FailureReason.OUT_OF_MEMORY:
            return _out_of_memory(failed)
        case FailureReason.INVALID_OUTPUT:
            return INVALID_OUTPUT
        case FailureReason.INTERNAL_ERROR:
            return INTERNAL_ERROR


def _out_of_memory(failed: Failed) -> JobError:
    spec = failed.request.spec
    advice = f"try {spec.width // 32 * 16}x{spec.height // 32 * 16} or less"
    if failed.fits is not None and math.prod(failed.fits) < spec.height * spec.width:
        height, width = failed.fits
        advice = f"{width}x{height} did fit on this worker"
    return JobError(
        code=ErrorCode.OUT_OF_MEMORY,
        message=f"The device's memory is too small for {spec.width}x{spec.height} with {spec.model}; {advice}.",
        retryable=True,
    )


@dataclass(frozen=True, slots=True)
class Signature:
    """Who drew it, written into every result."""

    worker_id: str
    version: str
    usd_per_hour: float


class Publisher:
    def __init__(
        self,
        queue: JobQueue,
        store: ImageStore,
        cards: Mapping[str, ModelCard],
        metrics: WorkerMetrics,
        signature: Signature,
        patience_s: float,
        store_patience_s: float,
        encode_threads: int,
    ) -> None:
        self._queue = queue
        self._store = store
        self._cards = cards
        self._metrics = metrics
        self._signature = signature
        self._patience_s = patience_s
        self._store_patience_s = store_patience_s
        self._refused = 0
        # Its own threads: a picture never waits behind what else blocks, nor that behind pictures.
        self._encoders = ThreadPoolExecutor(encode_threads, thread_name_prefix="encode")

    @property
    def is_refused(self) -> bool:
        """Whether there are pictures that the store did not take yet."""
        return self._refused > 0

    async def keep(self, job: RunningJob, drawn: Drawn, wanted: Callable[[], bool]) -> None:
        """Encode one image off the event loop and store it, trying again while it is `wanted`. Raises StoreError."""
        index = job.index_of(drawn.request)
        started_s = time.monotonic()
        job.finishing = Stage.IMAGE_ENCODE
        spec = job.job
        data, sha256 = await asyncio.get_running_loop().run_in_executor(
            self._encoders, self._encode, job, index, drawn.pixels
        )
        encoded_s = time.monotonic()
        job.finishing = Stage.STORE
        path = result_path(spec.id, job.claim.token, index, spec.output_format)
        await self._put(path, data, wanted)
        stored_s = time.monotonic()
        job.image_encode_s = max(job.image_encode_s, encoded_s - started_s)
        job.store_s = max(job.store_s, stored_s - encoded_s)
        job.images[index] = ImageFile(
            index=index,
            path=path,
            content_type=spec.output_format.content_type,
            width=spec.width,
            height=spec.height,
            seed=spec.seeds[index],
            steps=drawn.request.step_index,
            size_bytes=len(data),
            sha256=sha256,
        )
        self._observe(drawn, encoded_s - started_s, stored_s - encoded_s)

    async def complete(self, job: RunningJob) -> Verdict:
        """Show the job's images, unless it is canceled or no longer ours."""
        result = job.result(
            model_revision=self._revision(job),
            worker=self._signature.worker_id,
            worker_version=self._signature.version,
            usd_per_hour=self._signature.usd_per_hour,
        )
        verdict = await self._insist(job, lambda: self._queue.complete(job.claim, result))
        status = {Verdict.OK: "completed", Verdict.CANCEL: "canceled", Verdict.LOST: "fenced"}[verdict]
        if verdict is Verdict.OK:
            self._metrics.completed(job, time.monotonic())
        elif verdict is Verdict.CANCEL:
            self._metrics.ended(job.job, "canceled")
        else:
            self._metrics.completions_fenced.inc()
        log.info("job_finished", job_id=job.job.id, status=status, largest_batch=result.largest_batch)
        return verdict

    async def fail(self, job: RunningJob, error: JobError, cause: BaseException | None) -> Waste:
        """End the job, or leave it for a later attempt; say what became of its steps."""
        log.error("job_failed", job_id=job.job.id, code=error.code, exc_info=cause)
        verdict = await self._insist(job, lambda: self._queue.fail(job.claim, error))
        if verdict is Verdict.LOST:
            return Waste.FENCED
        if verdict is Verdict.CANCEL:
            self._metrics.ended(job.job, "canceled")
            return Waste.CANCELED
        if error.retryable and not await self._has_ended(job):
            self._metrics.job_retries.labels(error.code).inc()
            return Waste.RESTARTED
        self._metrics.ended(job.job, "failed", error.code)
        return Waste.FAILED

    async def hand_back(self, job: RunningJob) -> None:
        """Let another worker have a job that this one gave up, unless its lease has ended by then."""

        async def release() -> Verdict:
            return (await self._queue.release([job.claim]))[0]

        await self._insist(job, release)

    def close(self) -> None:
        """End the encoding threads; what none of them has begun is dropped."""
        self._encoders.shutdown(wait=False, cancel_futures=True)

    async def _put(self, path: str, data: bytes, wanted: Callable[[], bool]) -> None:
        give_up_at_s = time.monotonic() + self._store_patience_s
        pause_s = _ASK_AGAIN_S
        refused = False
        try:
            while True:
                try:
                    return await self._store.put(path, data)
                except StoreError as error:
                    if time.monotonic() >= give_up_at_s or not wanted():
                        raise
                    if not refused:
                        log.warning("picture_not_stored_yet", path=path, error=str(error))
                        refused = True
                        self._refused += 1
                await asyncio.sleep(min(pause_s, max(0.0, give_up_at_s - time.monotonic())))
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        finally:
            self._refused -= refused

    async def _has_ended(self, job: RunningJob) -> bool:
        try:
            return (await self._queue.read(job.job.tenant, job.job.id)).state in TERMINAL_STATES
        except QueueError:
            return False

    async def _insist(self, job: RunningJob, say: Callable[[], Awaitable[Verdict]]) -> Verdict:
        """Say a last word about a job until the queue hears it; it is fenced, so late is safe."""
        give_up_at_s = time.monotonic() + self._patience_s
        while True:
            try:
                return await say()
            except QueueError as error:
                if time.monotonic() > give_up_at_s:
                    log.error("queue_did_not_hear", job_id=job.job.id, error=str(error))
                    return Verdict.LOST
                await asyncio.sleep(_ASK_AGAIN_S)

    def _revision(self, job: RunningJob) -> str:
        return self._cards[job.job.model].source.revision

    def _encode(self, job: RunningJob, index: int, pixels: Tensor) -> tuple[bytes, str]:
        spec = job.job
        text = infotext(spec, spec.seeds[index], self._cards[spec.model].guidance)
        data = encode_image(pixels, spec.output_format, spec.output_compression, self._parameters(job, index), text)
        return data, hashlib.sha256(data).hexdigest()

    def _parameters(self, job: RunningJob, index: int) -> dict[str, object]:
        # Nor must a field that an older version does not know, where nobody uses it.
        spec = job.job.model_dump(exclude=_NOT_DRAWN, exclude_defaults=True)
        return {**spec, "seed": job.job.seeds[index], "model_revision": self._revision(job), "software": "Darkroom"}

    def _observe(self, drawn: Drawn, encode_s: float, store_s: float) -> None:
        request = drawn.request
        model = request.spec.model
        for stage, seconds in (
            (Stage.TEXT_ENCODE, request.text_encode_s),
            (Stage.DENOISE, request.denoise_s),
            (Stage.VAE_DECODE, request.vae_decode_s),
            (Stage.IMAGE_ENCODE, encode_s),
            (Stage.STORE, store_s),
        ):
            self._metrics.stage_seconds.labels(model, stage).observe(seconds)
