"""What a job should cost, in GPU-seconds: by it tenants are treated fairly, and queued work is told."""

from collections.abc import Iterable, Sequence

from app.jobs.schema import ImageJob, StepTime, WorkerInfo

PRIOR_S_PER_MEGAPIXEL = 0.1
"""A step of one row where no worker has said what it takes. Only ratios between jobs matter until one does."""

_MEGAPIXEL = 1024 * 1024


def step_times(workers: Iterable[WorkerInfo]) -> list[StepTime]:
    """Gather what live workers measured, those of the same batch next to each other."""
    return [each for worker in workers for each in worker.step_times]


def left_s(cost_s: float, ran_s: float, done: float) -> float:
    """Estimate how long a running job still takes. done: the share of its steps that it has taken, 0 to 1.

    In the beginning by what it was thought to cost alone, later more and more by what its steps took in company: of a
    rest (1 - done), `cost_s` counts with the weight (1 - done), and ran_s / done with the weight done.
    """
    return (1 - done) * (ran_s + (1 - done) * cost_s) if done else cost_s


def job_cost_s(job: ImageJob, rows: int, measured: Sequence[StepTime]) -> float:
    """Estimate the device's time for all of a job's images, had it the device to itself.

    rows: of a forward for one image; 2 with classifier-free guidance.
    """
    return step_cost_s(job.model, job.width * job.height, rows, measured) * job.num_inference_steps * job.n


def step_cost_s(model: str, pixels: int, rows: int, measured: Sequence[StepTime]) -> float:
    """Estimate a step's time. A size that nobody measured costs as much for each pixel as the nearest one that was."""
    of_model = [each for each in measured if each.model == model]
    if not of_model:
        return PRIOR_S_PER_MEGAPIXEL * rows * pixels / _MEGAPIXEL
    nearest = min(
        of_model, key=lambda each: (abs(each.width * each.height - pixels), abs(each.rows - rows), each.seconds)
    )
    return nearest.seconds * (rows / nearest.rows) * (pixels / (nearest.width * nearest.height))
