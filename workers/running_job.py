"""A job this worker holds: its claim, its images in flight, and those already stored."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from app.catalog.catalog import ModelCard
from app.jobs import schema
from app.jobs.queue import Claim
from app.jobs.schema import ImageFile, ImageJob, JobResult, Progress, Stage, StageSeconds
from workers.engine.request import DenoiseRequest, ImageSpec
from workers.engine.scheduler import Priority

_PRIORITIES: Mapping[schema.Priority, Priority] = {
    schema.Priority.LOW: Priority.LOW,
    schema.Priority.NORMAL: Priority.NORMAL,
    schema.Priority.HIGH: Priority.HIGH,
}


@dataclass(slots=True)
class UnfinishedFiles:
    """Who writes a job's checkpoints and previews: one at a time, and nobody once it is `closed`.

    newest: path -> what makes the bytes that are to be written there next. refused: the store did not take one.
    kept_steps: image -> where the checkpoint stands that the store has of it. preview_steps: the same of its preview;
    next_preview_steps: of the one that is to be written.
    """

    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    newest: dict[str, Callable[[], bytes]] = field(default_factory=dict)
    closed: bool = False
    refused: bool = False
    kept_steps: dict[int, int] = field(default_factory=dict)
    preview_steps: dict[int, int] = field(default_factory=dict)
    next_preview_steps: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class RunningJob:
    """`confirmed_at_s` is when the queue last said that the lease is ours, on the worker's monotonic clock.

    told_steps: what the queue has heard of. gone: the engine has let its images go, no step of theirs comes any more.
    """

    claim: Claim
    requests: list[DenoiseRequest]
    claimed_at_s: float
    confirmed_at_s: float
    images: dict[int, ImageFile] = field(default_factory=dict)
    finishing: Stage | None = None
    image_encode_s: float = 0.0
    store_s: float = 0.0
    redone_steps: int = 0
    reported: Progress | None = None
    told_steps: int = 0
    unfinished: UnfinishedFiles = field(default_factory=UnfinishedFiles)
    resumed: bool = False
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def job(self) -> ImageJob:
        return self.claim.job

    @property
    def complete(self) -> bool:
        return len(self.images) == self.job.n

    @property
    def images_left(self) -> int:
        return self.job.n - len(self.images)

    @property
    def queued_s(self) -> float:
        """From its submission to this claim. The server's clock can step back."""
        return max(0.0, self.claim.age_s)

    @property
    def gpu_s(self) -> float:
        """What it has taken of the device so far: of each forward its share by rows."""
        return sum(request.gpu_s for request in self.requests)

    @property
    def steps_taken(self) -> int:
        """Of all its images, those of earlier attempts that they went on from included."""
        return sum(request.step_index for request in self.requests)

    @property
    def steps_unsaved(self) -> int:
        """Steps of this attempt that a next one would have to take again."""
        kept = self.unfinished.kept_steps
        return sum(r.step_index - max(r.resumed_step, kept.get(i, 0)) for i, r in enumerate(self.requests))

    @property
    def steps_untold(self) -> int:
        """Steps of this attempt that the queue has not heard of."""
        return self.steps_taken - max(self.told_steps, sum(request.resumed_step for request in self.requests))

    @property
    def eta_error_ratio(self) -> float:
        """What it took from its first image's admission to its last one's pixels, over what was expected of that then.

        An image that is admitted later than the first is expected from then on.
        """
        admitted_at_s = min(request.admitted_at_s for request in self.requests)
        promised_at_s = max(request.admitted_at_s + request.promised_s for request in self.requests)
        drawn_at_s = max(request.drawn_at_s for request in self.requests)
        return (drawn_at_s - admitted_at_s) / (promised_at_s - admitted_at_s)

    def index_of(self, request: DenoiseRequest) -> int:
        """Which image a request of this claim draws. Raises ValueError for another claim's."""
        return self.requests.index(request)

    def progress(self) -> Progress:
        step = sum(request.step_index for request in self.requests)
        total_steps = self.job.num_inference_steps * self.job.n
        shown = self.unfinished.preview_steps
        previews = tuple(shown.get(index, 0) for index in range(self.job.n)) if shown else ()
        stage = Stage.DENOISE if step else Stage.TEXT_ENCODE
        if step >= total_steps:
            stage = self.finishing or Stage.VAE_DECODE
        return Progress(stage=stage, step=step, total_steps=total_steps, previews=previews)

    def result(self, *, model_revision: str, worker: str, worker_version: str, usd_per_hour: float) -> JobResult:
        """What to hand in. Images of one job run side by side, so a stage counts for as long as its slowest image."""
        cost_usd = round(self.gpu_s * usd_per_hour / 3600, 8) if usd_per_hour else None
        return JobResult(
            images=tuple(self.images[index] for index in range(self.job.n)),
            seconds=StageSeconds(
                text_encode=max(request.text_encode_s for request in self.requests),
                denoise=max(request.denoise_s for request in self.requests),
                vae_decode=max(request.vae_decode_s for request in self.requests),
                image_encode=self.image_encode_s,
                store=self.store_s,
            ),
            denoise_steps=sum(request.step_index for request in self.requests),
            largest_batch=max(request.largest_batch for request in self.requests),
            model_revision=model_revision,
            worker=worker,
            worker_version=worker_version,
            resumed_steps=sum(request.resumed_step for request in self.requests),
            redone_steps=self.redone_steps,
            gpu_s=round(self.gpu_s, 6),
            cost_usd=cost_usd,
        )


def to_requests(claim: Claim, claimed_at_s: float) -> list[DenoiseRequest]:
    """One request an image, each with its own seed. `claimed_at_s`: on the engine's clock."""
    job = claim.job
    # What has not arrived yet, by a clock that stepped back, would have no slowdown to count.
    arrival_s = claimed_at_s - max(0.0, claim.age_s)
    return [
        DenoiseRequest(
            id=f"{job.id}/{index}",
            spec=ImageSpec(
                model=job.model,
                prompt=job.prompt,
                negative_prompt=job.negative_prompt,
                height=job.height,
                width=job.width,
                num_inference_steps=job.num_inference_steps,
                guidance_scale=job.guidance_scale,
                true_cfg_scale=job.true_cfg_scale,
                max_sequence_length=job.max_sequence_length,
                seed=seed,
            ),
            arrival_s=arrival_s,
            priority=_PRIORITIES[job.priority],
            deadline_s=None if job.deadline_s is None else arrival_s + job.deadline_s,
            has_siblings=job.n > 1,
        )
        for index, seed in enumerate(job.seeds)
    ]


def default_spec(card: ModelCard) -> ImageSpec:
    """What the model draws when it is told nothing but a prompt."""
    defaults = card.defaults
    return ImageSpec(
        model=card.name,
        prompt="",
        negative_prompt=None,
        height=defaults.height,
        width=defaults.width,
        num_inference_steps=defaults.num_inference_steps,
        guidance_scale=defaults.guidance_scale,
        true_cfg_scale=1.0,
        max_sequence_length=defaults.max_sequence_length,
        seed=0,
    )
