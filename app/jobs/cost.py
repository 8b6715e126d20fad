"""What a job should cost, in GPU-seconds: by it tenants are treated fairly, and queued work is told."""

from collections.abc import Iterable, Sequence

from app.jobs.schema import ImageJob, StepTime, WorkerInfo

PRIOR_S_PER_MEGAPIXEL = 0.1
"""A step of one row where no worker has said what it takes. Only ratios between jobs matter until one does."""

_MEGAPIXEL = 1024 * 1024


def step_times(workers: Iterable[WorkerInfo]) -> list[StepTime]:
    """Gather what live workers measured, those of the same batch next to each other."""
    return [each for worker in workers for each in worker.step_times]


def job_cost_s(job: ImageJob, rows: int, measured: Sequence[StepTime]) -> float:
    """Estimate the device's time for all of a job's images, had it the device to itself.

    rows: of a forward for one image; 2 with classifier-free guidance. A size that nobody measured costs as much for
    each pixel as the nearest one that somebody did.
    """
    pixels = job.width * job.height
    of_model = [each for each in measured if each.model == job.model]
    if of_model:
        nearest = min(
            of_model, key=lambda each: (abs(each.width * each.height - pixels), abs(each.rows - rows), each.seconds)
        )
        step_s = nearest.seconds * (rows / nearest.rows) * (pixels / (nearest.width * nearest.height))
    else:
        step_s = PRIOR_S_PER_MEGAPIXEL * rows * pixels / _MEGAPIXEL
    return step_s * job.num_inference_steps * job.n
