"""Each job's share of the device: together they are all that it was busy."""

import itertools
from collections.abc import Mapping

import pytest

from app.jobs.queue import Claim
from tests.conftest import make_job
from tests.workers.requests import flat_cost
from tests.workers.troubled import CURSED, Trouble, Troubled
from workers.engine.engine import Engine
from workers.engine.pipeline import StepPipeline
from workers.engine.report import Report
from workers.engine.scheduler import Scheduler
from workers.running_job import RunningJob, to_requests


def make_engine(pipeline: StepPipeline) -> Engine:
    """On this clock every look at it takes one second more than the last: no two forwards take the same."""
    ticks = (float(n * (n + 1) / 2) for n in itertools.count())
    return Engine({"tiny-sd3": pipeline}, Scheduler(flat_cost(), max_rows=16), clock=lambda: next(ticks))


def make_running(number: int, **changes: object) -> RunningJob:
    job = make_job(id=f"img_{number}", width=64, height=64, max_sequence_length=32, **changes)
    claim = Claim(job, "token", age_s=0.0, started_before=False)
    return RunningJob(claim, to_requests(claim, 0.0), claimed_at_s=0.0, confirmed_at_s=0.0)


def finish(engine: Engine, jobs: list[RunningJob]) -> list[Report]:
    reports = [engine.admit([request for job in jobs for request in job.requests])]
    while len(engine):
        reports.append(engine.step())
        if len(reports) == 3:
            engine.abort(jobs[-1].requests[0].id)
    return reports


@pytest.mark.parametrize("trouble", [None, Trouble.OVERFLOW, Trouble.NAN, Trouble.ERROR])
def test_the_jobs_shares_are_all_that_the_device_was_busy(
    pipelines: Mapping[str, StepPipeline], trouble: Trouble | None
) -> None:
    engine = make_engine(Troubled(pipelines["tiny-sd3"], trouble))
    guided = make_running(1, n=2, num_inference_steps=5)
    plain = make_running(2, n=1, num_inference_steps=3, guidance_scale=1.0)
    cursed = make_running(3, n=2, num_inference_steps=4, prompt=CURSED)
    aborted = make_running(4, n=1, num_inference_steps=50)
    jobs = [guided, plain, cursed, aborted]
    reports = finish(engine, jobs)
    worked = [worked for report in reports for worked in report.worked]
    assert all(job.gpu_s > 0 for job in jobs)
    assert sum(job.gpu_s for job in jobs) == pytest.approx(sum(work.seconds for work in worked), rel=1e-12)
    denoised = sum(work.images for work in worked if work.stage == "denoise")
    assert denoised == sum(job.steps_taken for job in jobs)


def test_a_guided_image_has_two_shares_of_a_step(pipelines: Mapping[str, StepPipeline]) -> None:
    engine = make_engine(pipelines["tiny-sd3"])
    guided, plain = make_running(1), make_running(2, guidance_scale=1.0)
    engine.admit([*guided.requests, *plain.requests])
    before = guided.gpu_s, plain.gpu_s
    [step] = engine.step().worked
    assert (guided.gpu_s - before[0], plain.gpu_s - before[1]) == pytest.approx(
        (step.seconds * 2 / 3, step.seconds / 3)
    )
