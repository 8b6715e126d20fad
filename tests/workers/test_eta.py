"""What a request is promised when it joins."""

import pytest

from tests.workers.jobs import A, B, Job, fair, free, measured
from workers.engine.eta import seconds_in_turns

DECODE_S = 0.5


def test_alone_it_takes_its_steps_and_its_decode() -> None:
    job = Job(remaining_steps=10)
    assert seconds_in_turns(job, [job], measured(fair)) == 10 + DECODE_S


def test_who_was_there_with_more_steps_costs_what_its_rows_cost() -> None:
    job, other = Job(remaining_steps=4), Job(remaining_steps=100)
    assert seconds_in_turns(job, [other, job], measured(fair)) == 4 * 2 + DECODE_S
    assert seconds_in_turns(job, [other, job], measured(free)) == 4 + DECODE_S


def test_who_leaves_earlier_costs_its_steps_and_its_decode() -> None:
    job, other = Job(remaining_steps=10), Job(remaining_steps=3)
    assert seconds_in_turns(job, [other, job], measured(fair)) == 3 * 2 + 7 * 1 + 2 * DECODE_S


def test_who_cannot_share_its_batch_takes_turns_with_it() -> None:
    job, other = Job(remaining_steps=4), Job(key=B, remaining_steps=2)
    assert seconds_in_turns(job, [job, other], measured(free)) == 4 + 2 + 2 * DECODE_S


def test_a_guided_request_is_two_rows() -> None:
    job = Job(remaining_steps=4, rows=2)
    assert seconds_in_turns(job, [job], measured(fair)) == 4 * 2 + DECODE_S


def test_what_does_not_fit_one_forward_takes_several() -> None:
    jobs = [Job(remaining_steps=4) for _ in range(18)]
    assert seconds_in_turns(jobs[0], jobs, measured(free)) == pytest.approx(4 * 2 + 18 * DECODE_S)


def test_finished_latents_only_wait_for_decodes() -> None:
    job, other = Job(key=A, remaining_steps=0), Job(remaining_steps=5)
    assert seconds_in_turns(job, [job, other], measured(fair)) == DECODE_S
