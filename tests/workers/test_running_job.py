"""What a worker makes of a claim."""

from app.jobs.queue import Claim
from app.jobs.schema import Priority
from tests.conftest import make_job
from workers.engine.scheduler import Priority as EnginePriority
from workers.running_job import RunningJob, to_requests


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
