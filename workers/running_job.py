"""A job this worker holds: its claim, its images in flight, and those already stored."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from app.jobs.queue import Claim
from app.jobs.schema import ImageFile, ImageJob, JobResult, Progress, Stage, StageSeconds
from workers.engine.request import DenoiseRequest, ImageSpec


@dataclass(slots=True, eq=False)
class RunningJob:
    """`confirmed_at_s` is when the queue last said that the lease is ours, on the worker's monotonic clock."""

    claim: Claim
    requests: list[DenoiseRequest]
    claimed_at_s: float
    confirmed_at_s: float
    images: dict[int, ImageFile] = field(default_factory=dict)
    finishing: Stage | None = None
    image_encode_s: float = 0.0
    store_s: float = 0.0
    reported: Progress | None = None

    @property
    def job(self) -> ImageJob:
        return self.claim.job

    @property
    def complete(self) -> bool:
        return len(self.images) == self.job.n

    @property
    def images_left(self) -> int:
        return self.job.n - len(self.images)

    def index_of(self, request: DenoiseRequest) -> int:
        """Which image a request of this claim draws. Raises ValueError for another claim's."""
        return self.requests.index(request)

    def progress(self) -> Progress:
        step = sum(request.step_index for request in self.requests)
        total_steps = self.job.num_inference_steps * self.job.n
        if step < total_steps:
            return Progress(stage=Stage.DENOISE if step else Stage.TEXT_ENCODE, step=step, total_steps=total_steps)
        return Progress(stage=self.finishing or Stage.VAE_DECODE, step=step, total_steps=total_steps)

    def result(self, *, model_revision: str, worker: str, worker_version: str) -> JobResult:
        """What to hand in. Images of one job run side by side, so a stage counts for as long as its slowest image."""
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
        )


def to_requests(job: ImageJob, arrivals: Iterator[int]) -> list[DenoiseRequest]:
    """One request an image, each with its own seed."""
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
            arrival=next(arrivals),
        )
        for index, seed in enumerate(job.seeds)
    ]
