"""What crosses the queue: a job as a worker is told it, and its record as everyone reads it.

Every message is frozen. Golden copies live in tests/contract/golden. Versions live side by side while a server is
renewed, so a field that came later has a default (what an older version wrote is still read: tests/contract/older),
and fields at their defaults are not written (what uses nothing new is still read by an older version). A worker that
meets a field it does not know hands the job back for another to draw; where a message is only shown, it is passed over.
"""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class JobState(StrEnum):
    """Where a job is in its life. `delayed` waits for a retry; `canceling` waits for its worker to notice."""

    QUEUED = "queued"
    DELAYED = "delayed"
    IN_PROGRESS = "in_progress"
    CANCELING = "canceling"
    COMPLETED = "completed"
    FAILED = "failed"
    DEAD = "dead"
    CANCELED = "canceled"


TERMINAL_STATES = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.DEAD, JobState.CANCELED})


class ErrorCode(StrEnum):
    """Why a job did not become a picture. Clients switch on these; they never change."""

    OUT_OF_MEMORY = "out_of_memory"
    INVALID_OUTPUT = "invalid_output"
    WORKER_LOST = "worker_lost"
    MODEL_UNAVAILABLE = "model_unavailable"
    STORAGE_FAILED = "storage_failed"
    INTERNAL_ERROR = "internal_error"


class Stage(StrEnum):
    """What a job in progress is doing; also the `stage` label of the metrics."""

    QUEUED = "queued"
    TEXT_ENCODE = "text_encode"
    DENOISE = "denoise"
    VAE_DECODE = "vae_decode"
    IMAGE_ENCODE = "image_encode"
    STORE = "store"
    DONE = "done"


class Priority(StrEnum):
    """How soon a job is wanted. While all three wait, high gets 8 times the share of normal, and normal that of low."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


class OutputFormat(StrEnum):
    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"

    @property
    def content_type(self) -> str:
        return f"image/{self}"


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Advice(_Message):
    """A warning: the request is drawn as it was asked for, but may not do what its author thinks."""

    code: str = Field(description="Stable; switch on this.", examples=["steps_too_few"])
    message: str = Field(description="For a reader; it names a value to try.")
    param: str | None = Field(description="The request's field that it is about.", examples=["num_inference_steps"])


class ImageJob(_Message):
    """One request for n images, every setting resolved: any worker that runs it draws the same pictures.

    `priority` and `deadline_s` change when they are drawn, never what.
    """

    id: str
    tenant: str
    model: str
    prompt: str
    negative_prompt: str | None
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    true_cfg_scale: float
    max_sequence_length: int
    seed: int
    n: int
    output_format: OutputFormat
    output_compression: int | None = Field(description="Quality of JPEG and WebP, 0 to 100; None: the format's own.")
    priority: Priority = Priority.NORMAL
    deadline_s: float | None = Field(default=None, description="From submission: a wish; a late job is still finished.")
    metadata: dict[str, str]
    warnings: tuple[Advice, ...] = ()

    @property
    def seeds(self) -> range:
        """One seed an image: seed, seed + 1, ..."""
        return range(self.seed, self.seed + self.n)


class Progress(_Message):
    """How far a job has developed: steps are summed over its n images."""

    stage: Stage
    step: int
    total_steps: int
    previews: tuple[int, ...] = Field(
        default=(), description="Image by image, the step of its latest preview; 0: none."
    )


class JobError(_Message):
    """A job's failure in words for its author: never an exception's own text."""

    code: ErrorCode
    message: str
    retryable: bool


class ImageFile(_Message):
    """One finished picture: where its bytes are in the store, and what they are."""

    index: int
    path: str
    content_type: str
    width: int
    height: int
    seed: int
    steps: int
    size_bytes: int
    sha256: str


class StageSeconds(_Message):
    """Wall time of a job's stages on its worker. Stages of different images overlap, so they need not add up."""

    text_encode: float
    denoise: float
    vae_decode: float
    image_encode: float
    store: float


class JobResult(_Message):
    """What a worker hands in with `complete`."""

    images: tuple[ImageFile, ...]
    seconds: StageSeconds
    denoise_steps: int = Field(description="Denoising steps taken, summed over the images.")
    largest_batch: int = Field(description="The most rows that shared one forward with this job's, its own included.")
    model_revision: str
    worker: str
    worker_version: str
    gpu_s: float = Field(default=0.0, description="Its share of the device's time, in seconds.")
    cost_usd: float | None = Field(default=None, description="Of that time, where the worker knows its price.")
    resumed_steps: int = Field(default=0, description="Of the denoising steps, those an earlier attempt had taken.")
    redone_steps: int = Field(default=0, description="Steps that earlier attempts took in vain.")


class JobRecord(_Message):
    """A job as the queue holds it. Times are the queue server's, in milliseconds since the epoch."""

    job: ImageJob
    state: JobState
    attempts: int
    crashes: int
    worker: str | None
    submitted_ms: int
    started_ms: int | None
    finished_ms: int | None
    progress: Progress | None
    result: JobResult | None
    error: JobError | None
    cost_s: float = Field(description="What it was thought to cost when it was submitted, in GPU-seconds.")
    position: int | None = Field(description="Jobs of the same model ahead of it, while it is queued.")
    start_in_s: float | None = Field(description="Until a worker should take it, while it is queued.")
    expired_ms: int | None = Field(description="When its pictures were deleted.")


class StepTime(_Message):
    """What one denoising step of a model takes a worker."""

    model: str
    height: int
    width: int
    rows: int
    seconds: float


class WorkerInfo(_Message):
    """What a live worker says of itself with each heartbeat."""

    id: str
    version: str
    models: tuple[str, ...]
    device: str
    jobs_in_progress: int
    memory_used_bytes: int | None = None
    step_times: tuple[StepTime, ...] = ()
    usd_per_hour: float = Field(default=0.0, description="What its device costs; 0: it does not know.")


class LaneStats(_Message):
    """The queue of one model. work_s: GPU-seconds; pace_s: between two jobs that are taken from it."""

    queued: int
    oldest_s: float
    work_s: float
    pace_s: float
    queued_by_priority: dict[Priority, int]
    suspects: int
    in_progress: int


class QueueStats(_Message):
    """The whole queue at one moment. totals: jobs ever submitted, completed, failed, dead, canceled."""

    lanes: dict[str, LaneStats]
    in_progress: int
    delayed: int
    dead: int
    workers: tuple[WorkerInfo, ...]
    totals: dict[str, int]

    def workers_live(self, model: str) -> int:
        return sum(model in worker.models for worker in self.workers)
