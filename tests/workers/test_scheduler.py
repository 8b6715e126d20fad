"""The scheduler's rules, a table each, on plain data."""

import subprocess
import sys
from dataclasses import dataclass

import pytest

from workers.engine.scheduler import Scheduler


@dataclass(frozen=True)
class Job:
    key: str
    arrival: int
    rows: int = 1


def arrivals(batch: list[Job]) -> list[int]:
    return [job.arrival for job in batch]


def test_nothing_waits_nothing_steps() -> None:
    assert Scheduler(max_rows=4).next_batch([]) == []


def test_first_come_first_served_up_to_the_rows() -> None:
    jobs = [Job("a", arrival) for arrival in (3, 0, 2, 1, 4)]
    assert arrivals(Scheduler(max_rows=3).next_batch(jobs)) == [0, 1, 2]


def test_a_guided_request_takes_two_rows() -> None:
    jobs = [Job("a", 0, rows=2), Job("a", 1), Job("a", 2, rows=2), Job("a", 3)]
    # Three rows are taken, and the next in line needs two: nobody overtakes it.
    assert arrivals(Scheduler(max_rows=4).next_batch(jobs)) == [0, 1]


def test_unlike_requests_never_share_a_batch() -> None:
    jobs = [Job("a", 0), Job("b", 1), Job("a", 2)]
    assert {job.key for job in Scheduler(max_rows=8).next_batch(jobs)} == {"a"}


def test_groups_take_turns_even_when_one_is_crowded() -> None:
    jobs = [Job("a", arrival) for arrival in range(20)] + [Job("b", 20), Job("c", 21)]
    scheduler = Scheduler(max_rows=4)
    keys = [scheduler.next_batch(jobs)[0].key for _ in range(9)]
    assert keys == ["a", "b", "c"] * 3


def test_a_newcomer_group_goes_before_groups_that_had_their_turn() -> None:
    scheduler = Scheduler(max_rows=4)
    old = [Job("a", 0), Job("b", 1)]
    for _ in range(2):
        scheduler.next_batch(old)
    assert scheduler.next_batch([*old, Job("new", 2)])[0].key == "new"


def test_a_batch_too_small_for_a_guided_request_is_refused() -> None:
    with pytest.raises(ValueError, match=r"at least 2.*got 1"):
        Scheduler(max_rows=1)


def test_it_needs_no_torch() -> None:
    """It runs in a simulator too, so importing it must not bring torch in."""
    code = "import sys, workers.engine.scheduler; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
