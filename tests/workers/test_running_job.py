"""What a worker makes of a claim."""

import asyncio
from pathlib import Path

import torch
from prometheus_client import CollectorRegistry

from app.jobs.queue import Claim
from app.jobs.schema import Priority
from app.jobs.store import open_store, preview_path
from tests.conftest import make_job
from workers.engine.report import Preview
from workers.engine.scheduler import Priority as EnginePriority
from workers.metrics import WorkerMetrics
from workers.running_job import RunningJob, to_requests
from workers.unfinished import Unfinished


def claim(age_s: float = 3.0, **changes: object) -> Claim:
    return Claim(make_job(**changes), "a token", age_s, started_before=False)


def test_a_job_has_waited_since_it_was_submitted() -> None:
    [request] = to_requests(claim(age_s=3.0, deadline_s=10.0), claimed_at_s=100.0)
    assert (request.arrival_s, request.deadline_s) == (97.0, 107.0)


def test_a_job_from_the_future_has_just_arrived() -> None:
    """The server's clock may step back between a job's submission and its claim."""
    [request] = to_requests(claim(age_s=-3600.0), claimed_at_s=100.0)
    assert request.arrival_s == 100.0


def test_its_priority_is_the_engines() -> None:
    for priority in Priority:
        [request] = to_requests(claim(priority=priority), claimed_at_s=100.0)
        assert request.priority is EnginePriority[priority.name]


def test_each_image_knows_whether_others_wait_for_it() -> None:
    assert [request.has_siblings for request in to_requests(claim(n=1), 100.0)] == [False]
    requests = to_requests(claim(n=3, seed=7), 100.0)
    assert [(request.spec.seed, request.has_siblings) for request in requests] == [(7, True), (8, True), (9, True)]


def test_what_a_next_attempt_must_take_again() -> None:
    given = claim(n=2, num_inference_steps=50)
    job = RunningJob(given, to_requests(given, 100.0), claimed_at_s=100.0, confirmed_at_s=100.0)
    first, second = job.requests
    first.resumed_step, first.step_index = 10, 30
    second.step_index = 20
    assert (job.steps_taken, job.steps_unsaved, job.steps_untold) == (50, 40, 40)
    job.unfinished.kept_steps[0] = 25
    job.told_steps = 45
    assert job.steps_unsaved == 5 + 20
    assert job.steps_untold == 5


async def test_it_tells_of_the_previews_that_the_store_has(tmp_path: Path) -> None:
    (tmp_path / "previews").mkdir()
    given = claim(n=2, num_inference_steps=50)
    job = RunningJob(given, to_requests(given, 100.0), claimed_at_s=100.0, confirmed_at_s=100.0)
    unfinished = Unfinished(open_store(f"file://{tmp_path}"), {}, WorkerMetrics(CollectorRegistry()))
    assert job.progress().previews == ()

    async def keep(index: int, step: int) -> tuple[int, ...]:
        pixels = torch.zeros(8, 8, 3, dtype=torch.uint8)
        await unfinished.keep_preview(job, Preview(job.requests[index], step, pixels))
        return job.progress().previews

    assert await keep(1, 4) == (0, 4)
    assert await keep(0, 7) == (7, 4)
    # Of two that come while another is written, the store gets the newer one only.
    both = asyncio.gather(keep(1, 8), keep(1, 9))
    await both
    assert job.progress().previews == (7, 9)
    (tmp_path / preview_path(job.job.id, 0)).unlink()
    (tmp_path / "previews").rename(tmp_path / "elsewhere")
    (tmp_path / "previews").write_text("a file where a folder is wanted")
    assert await keep(0, 11) == (7, 9)
