"""The public JSON that a client gets: a job, a list of them, the models."""

import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, Field

from app.api.links import Links
from app.catalog.catalog import Family, Guidance, Limits, Recommended
from app.jobs.cost import left_s
from app.jobs.schema import (
    TERMINAL_STATES,
    Advice,
    ErrorCode,
    JobRecord,
    JobState,
    OutputFormat,
    Priority,
    Stage,
)


class Status(StrEnum):
    """A job's life as a client sees it."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"


STATUS_OF: dict[JobState, Status] = {
    JobState.QUEUED: Status.QUEUED,
    JobState.DELAYED: Status.QUEUED,
    JobState.IN_PROGRESS: Status.IN_PROGRESS,
    JobState.CANCELING: Status.IN_PROGRESS,
    JobState.COMPLETED: Status.COMPLETED,
    JobState.FAILED: Status.FAILED,
    JobState.DEAD: Status.FAILED,
    JobState.CANCELED: Status.CANCELED,
}


class ProgressView(BaseModel):
    percent: int = Field(description="Of the denoising steps of all the job's images.")
    stage: Stage
    step: int
    total_steps: int
    eta_seconds: float | None = Field(
        description="Until the job should be finished; 0 once it is over, null where nothing is known."
    )


class QueueView(BaseModel):
    position: int = Field(description="Jobs of the same model ahead of this one; 0 once it runs.")
    eta_seconds: float = Field(description="Until a worker should take it; 0 once one has.")


class ImageView(BaseModel):
    index: int
    url: str
    width: int
    height: int
    content_type: str
    seed: int
    steps: int
    size_bytes: int
    sha256: str


class ParametersView(BaseModel):
    """Every value of the request, defaults filled in, and what drew the images; `seed` is the first image's."""

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
    output_compression: int | None
    priority: Priority
    deadline_seconds: float | None
    model_revision: str | None = None
    worker_version: str | None = None
    largest_batch: int | None = Field(default=None, description="The most rows that shared one step with this job's.")


class TimingsView(BaseModel):
    """Seconds, as far as they are known."""

    queue_seconds: float | None = None
    text_encode_seconds: float | None = None
    denoise_seconds: float | None = None
    vae_decode_seconds: float | None = None
    image_encode_seconds: float | None = None
    store_seconds: float | None = None
    total_seconds: float | None = None


class UsageView(BaseModel):
    """What the finished job took; cost only where the server knows what its devices cost."""

    denoise_steps: int
    gpu_seconds: float
    cost_usd: float | None


class JobErrorView(BaseModel):
    code: ErrorCode
    message: str
    retryable: bool = Field(description="Whether the same request may succeed later.")


class UrlsView(BaseModel):
    self: str
    content: str
    preview: str
    events: str
    cancel: str


class ImageJobView(BaseModel):
    """A job. Follow `urls.events`, or read `urls.self` with `Prefer: wait`, until `status` is completed, failed or
    canceled."""

    id: str
    object: Literal["image"] = "image"
    status: Status
    model: str
    created: int = Field(description="Seconds since the epoch, as OpenAI has it.")
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    expires_at: datetime | None = Field(description="When its images are deleted; null: not yet known, or never.")
    progress: ProgressView
    queue: QueueView
    data: list[ImageView]
    parameters: ParametersView
    timings: TimingsView
    usage: UsageView
    warnings: list[Advice] = Field(description="What the request may not do as its author thinks; drawn all the same.")
    error: JobErrorView | None
    metadata: dict[str, str]
    urls: UrlsView


class ImageJobList(BaseModel):
    """A page of jobs, newest first. Ask for the next with `after` = `next_after`."""

    object: Literal["list"] = "list"
    data: list[ImageJobView]
    has_more: bool
    next_after: str | None


class ModelDefaults(BaseModel):
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    max_sequence_length: int


class StepTimeView(BaseModel):
    """What one denoising step takes a live worker; `rows`: images in it, each counted twice with guidance by CFG."""

    width: int
    height: int
    rows: int
    seconds: float


class ModelView(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    family: Family
    description: str
    license: str
    guidance: Guidance
    revision: str
    limits: Limits
    defaults: ModelDefaults
    recommended: Recommended
    workers_live: int
    step_times: list[StepTimeView] = Field(description="As live workers measured them.")
    usd_per_image: float | None = Field(
        description="What one image of the defaults should cost at present; null where workers do not know."
    )


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelView]


def job_view(record: JobRecord, links: Links, keep_pictures_s: float | None) -> ImageJobView:
    """Show a record to its owner. keep_pictures_s: after a job's end; None: for ever."""
    job, result, status = record.job, record.result, STATUS_OF[record.state]
    self_url = links.job(job.id)
    seconds = result.seconds if result else None
    return ImageJobView(
        id=job.id,
        status=status,
        model=job.model,
        created=record.submitted_ms // 1000,
        created_at=_time(record.submitted_ms),
        started_at=_time(record.started_ms) if record.started_ms else None,
        completed_at=_time(record.finished_ms) if record.finished_ms else None,
        expires_at=_expires_at(record, keep_pictures_s),
        progress=progress_view(record),
        queue=QueueView(position=record.position or 0, eta_seconds=record.start_in_s or 0),
        data=[
            ImageView(
                url=links.picture("content", job.tenant, job.id, image.index), **image.model_dump(exclude={"path"})
            )
            for image in (result.images if result else ())
        ],
        parameters=ParametersView(
            **job.model_dump(exclude={"id", "tenant", "metadata", "deadline_s", "warnings"}),
            deadline_seconds=job.deadline_s,
            model_revision=result.model_revision if result else None,
            worker_version=result.worker_version if result else None,
            largest_batch=result.largest_batch if result else None,
        ),
        timings=TimingsView(
            queue_seconds=_seconds(record.submitted_ms, record.started_ms),
            text_encode_seconds=seconds.text_encode if seconds else None,
            denoise_seconds=seconds.denoise if seconds else None,
            vae_decode_seconds=seconds.vae_decode if seconds else None,
            image_encode_seconds=seconds.image_encode if seconds else None,
            store_seconds=seconds.store if seconds else None,
            total_seconds=_seconds(record.submitted_ms, record.finished_ms),
        ),
        usage=UsageView(
            denoise_steps=result.denoise_steps if result else 0,
            gpu_seconds=result.gpu_s if result else 0,
            cost_usd=result.cost_usd if result else None,
        ),
        warnings=list(job.warnings),
        error=JobErrorView(**record.error.model_dump()) if record.error and status is Status.FAILED else None,
        metadata=job.metadata,
        urls=UrlsView(
            self=self_url,
            content=links.picture("content", job.tenant, job.id),
            preview=links.picture("preview", job.tenant, job.id),
            events=f"{self_url}/events",
            cancel=f"{self_url}/cancel",
        ),
    )


def progress_view(record: JobRecord) -> ProgressView:
    total_steps = record.job.num_inference_steps * record.job.n
    stage, step = Stage.QUEUED, 0
    if record.state is JobState.COMPLETED:
        stage, step = Stage.DONE, total_steps
    elif record.progress is not None and record.state not in (JobState.QUEUED, JobState.DELAYED):
        stage, step = record.progress.stage, record.progress.step
    return ProgressView(
        percent=100 * step // total_steps,
        stage=stage,
        step=step,
        total_steps=total_steps,
        eta_seconds=_eta_s(record, step / total_steps),
    )


def _eta_s(record: JobRecord, done: float) -> float | None:
    if record.state in TERMINAL_STATES:
        return 0
    if record.start_in_s is not None:
        return round(record.start_in_s + record.cost_s, 3)
    if record.state is not JobState.IN_PROGRESS or record.started_ms is None:
        return None
    # By this machine's clock, where all else goes by the queue's: what is told is an estimate anyway.
    ran_s = max(0.0, time.time() - record.started_ms / 1000)
    return round(left_s(record.cost_s, ran_s, done), 3)


def _expires_at(record: JobRecord, keep_pictures_s: float | None) -> datetime | None:
    if record.finished_ms is None or keep_pictures_s is None or record.state is JobState.DEAD:
        return None
    return _time(record.finished_ms + round(keep_pictures_s * 1000))


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _seconds(from_ms: int, to_ms: int | None) -> float | None:
    return None if to_ms is None else (to_ms - from_ms) / 1000
