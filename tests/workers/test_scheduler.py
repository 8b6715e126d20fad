"""The scheduler's rules, a table each, on plain data."""

import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.workers.jobs import SD3, A, B, Job, fair, free, knee, measured, names, scheduler, take
from workers.engine.cost import Stage
from workers.engine.scheduler import Priority, Scheduler


def test_nothing_waits_nothing_runs() -> None:
    assert scheduler(fair).next_work([], 0.0) is None


@pytest.mark.parametrize(
    ("curve", "expected"), [(free, "c b a d"), (fair, "c"), (knee, "c b a")], ids=["free", "fair", "knee"]
)
def test_a_row_joins_while_it_pays(curve: Callable[[int], float], expected: str) -> None:
    jobs = [Job(name, remaining_steps=left) for name, left in (("a", 6), ("b", 5), ("c", 4), ("d", 7))]
    assert names(scheduler(curve).next_work(jobs, 0.0)) == expected


def test_equal_requests_do_not_share_where_sharing_only_delays_the_first() -> None:
    jobs = [Job("first", arrival_s=0.0), Job("second", arrival_s=0.1)]
    scheduling = scheduler(fair)
    for _ in range(9):
        work = scheduling.next_work(jobs, 0.1)
        assert names(work) == "first"
        assert work is not None
        take(work)


@pytest.mark.parametrize("curve", [fair, lambda rows: rows**0.9999], ids=["fair", "all but fair"])
def test_a_tie_is_no_reason_to_share(curve: Callable[[int], float]) -> None:
    assert names(scheduler(curve).next_work([Job("a"), Job("b")], 0.0)) == "a"


def test_cheap_rows_join_short_work() -> None:
    """Smith's rule alone leaves rows empty that cost a seventh of the first: it sees no time that is saved later."""
    jobs = [Job("short", num_inference_steps=1, remaining_steps=1), Job("long", num_inference_steps=50)]
    assert names(scheduler(lambda rows: (6 + rows) / 7).next_work(jobs, 0.0)) == "short long"
    assert names(scheduler(lambda rows: (6 + rows) / 7, efficiency=0.0).next_work(jobs, 0.0)) == "short"


def test_max_rows_is_the_most() -> None:
    jobs = [Job(str(i), arrival_s=i / 100) for i in range(9)]
    assert names(scheduler(free, max_rows=4).next_work(jobs, 1.0)) == "0 1 2 3"


def test_a_guided_request_takes_two_rows_and_is_never_split() -> None:
    jobs = [Job("a", rows=2), Job("b"), Job("c", rows=2), Job("d")]
    assert names(scheduler(free, max_rows=4).next_work(jobs, 0.0)) == "a b d"


def test_a_guided_request_counts_its_two_rows_in_its_time() -> None:
    jobs = [Job("guided", rows=2), Job("plain", remaining_steps=11, num_inference_steps=11)]
    assert names(scheduler(fair).next_work(jobs, 0.0)) == "plain"


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (Job("other", remaining_steps=9), "other"),
        (Job("other", num_inference_steps=9, remaining_steps=9), "other"),
        (Job("other", num_inference_steps=20), "job"),  # as much is left, but its owner expects to wait longer
        (Job("other", key=B, remaining_steps=9), "other"),
        (Job("other", key=B, num_inference_steps=11, remaining_steps=11), "job"),
    ],
)
def test_short_work_goes_first(other: Job, expected: str) -> None:
    assert names(scheduler(fair).next_work([Job(), replace(other)], 0.0)) == expected


def test_who_waited_long_goes_before_shorter_work() -> None:
    long, short = Job("long", num_inference_steps=40, remaining_steps=40), Job("short", arrival_s=1000.0)
    assert names(scheduler(fair).next_work([long, replace(short, arrival_s=10.0)], 10.0)) == "short"
    assert names(scheduler(fair).next_work([long, short], 1000.0)) == "long"
    assert names(scheduler(fair, ageing=0.0).next_work([long, short], 1000.0)) == "short"


@pytest.mark.parametrize("steps", [10, 50])
def test_a_higher_class_goes_first_even_if_it_is_longer(steps: int) -> None:
    classes = [Priority.LOW, Priority.HIGH, Priority.NORMAL]
    jobs = [Job(priority.name, priority=priority) for priority in classes]
    jobs[1].num_inference_steps = jobs[1].remaining_steps = steps
    scheduling = scheduler(fair, oldest_share=0.0)
    order = []
    while jobs:
        work = scheduling.next_work(jobs, 0.0)
        assert work is not None
        for done in take(work):
            jobs.remove(done)
            order.append(done.name)
    assert order == ["HIGH", "NORMAL", "LOW"]


@pytest.mark.parametrize(
    ("deadline_s", "expected"),
    [
        (1000.0, "short"),  # far off
        (25.0, "long"),  # near
        (20.5, "long"),  # only just possible: 20 steps and half a second to decode
        (20.0, "short"),  # lost, and no matter to others
        (-5.0, "short"),
    ],
)
def test_urgency_rises_as_slack_gets_short_and_ends_with_it(deadline_s: float, expected: str) -> None:
    long = Job("long", num_inference_steps=20, remaining_steps=20, deadline_s=deadline_s)
    assert names(scheduler(fair).next_work([long, Job("short")], 0.0)) == expected


def test_finished_latents_are_decoded_with_their_like() -> None:
    jobs = [Job("a", remaining_steps=0), Job("b", remaining_steps=3), Job("c", remaining_steps=0), Job("d", B)]
    work = scheduler(free).next_work(jobs, 0.0)
    assert work is not None
    assert (work.stage, names(work)) == (Stage.VAE_DECODE, "a c")


def test_a_guided_request_decodes_as_one_image() -> None:
    jobs = [Job(name, rows=2, remaining_steps=0) for name in "abc"]
    assert names(scheduler(free, max_rows=3).next_work(jobs, 0.0)) == "a b c"


@pytest.mark.parametrize(
    ("switch_s", "steps", "expected"),
    [
        (0.0, 8, "other"),
        (1.0, 8, "other"),  # an eighth of a second for each of its steps
        (50.0, 8, "job"),
        (50.0, 1, "job"),
    ],
)
def test_a_model_that_must_be_brought_in_pays_for_it_over_its_steps(switch_s: float, steps: int, expected: str) -> None:
    jobs = [Job(), Job("other", SD3, num_inference_steps=steps, remaining_steps=steps)]
    work = scheduler(fair).next_work(jobs, 0.0, lambda model: switch_s if model == "sd3" else 0.0)
    assert names(work) == expected


def test_after_an_out_of_memory_batches_stay_smaller() -> None:
    jobs = [Job(str(i)) for i in range(8)]
    others = [Job(f"b{i}", B) for i in range(4)]
    scheduling = scheduler(free)
    scheduling.lower_cap(A, 3)
    scheduling.lower_cap(A, 5)  # a cap is never raised
    assert names(scheduling.next_work(jobs, 0.0)) == "0 1 2"
    assert names(scheduling.next_work(others, 0.0)) == "b0 b1 b2 b3"
    assert names(scheduling.next_work([replace(job, remaining_steps=0) for job in jobs], 0.0)).count(" ") == 7
    scheduling.lower_cap(A, 2, Stage.VAE_DECODE)
    assert names(scheduling.next_work([replace(job, remaining_steps=0) for job in jobs], 0.0)) == "0 1"


def test_a_guided_request_over_the_cap_runs_alone() -> None:
    scheduling = scheduler(free)
    scheduling.lower_cap(A, 1)
    assert names(scheduling.next_work([Job("a", rows=2), Job("b", rows=2)], 0.0)) == "a"


def test_ties_go_to_the_earlier_arrival_then_to_the_earlier_place() -> None:
    jobs = [Job("a", arrival_s=2.0), Job("b", arrival_s=1.0), Job("c", arrival_s=1.0)]
    assert names(scheduler(free, ageing=0.0).next_work(jobs, 5.0)) == "b c a"
    groups = [Job("a", A), Job("b", B)]
    assert names(scheduler(free).next_work(groups, 5.0)) == "a"
    assert names(scheduler(free).next_work(groups[::-1], 5.0)) == "b"


@pytest.mark.parametrize(
    ("encodes_s", "step_s", "expected"),
    [
        ([], 1.0, 0),
        ([9.0, 0.1], 1.0, 1),  # one always comes in
        ([0.2, 0.2, 0.2, 0.2], 1.0, 2),  # half a step at most
        ([0.0, 0.0, 0.0], 0.0, 3),  # cached prompts hold nobody up
        ([0.1, 0.1], 0.0, 1),
    ],
)
def test_text_encodes_hold_up_a_step_by_a_share_of_it(encodes_s: list[float], step_s: float, expected: int) -> None:
    assert scheduler(fair).admissions(encodes_s, step_s) == expected


def test_the_cost_model_may_be_wrong_by_ten_once() -> None:
    """A page fault at one step must not change who runs next."""
    rng = random.Random(0)
    cost = measured(knee)
    for _ in range(4):
        for rows in range(1, 9):
            cost.observe(Stage.DENOISE, A, rows, knee(rows))
    jobs = [Job(str(i), remaining_steps=rng.randrange(1, 10), arrival_s=rng.random()) for i in range(12)]
    before = names(Scheduler(cost, 8).next_work(jobs, 1.0))
    cost.observe(Stage.DENOISE, A, 3, 10.0)
    assert names(Scheduler(cost, 8).next_work(jobs, 1.0)) == before


@pytest.mark.parametrize(("max_rows", "message"), [(1, r"at least 2.*got 1"), (17, r"17.*up to 16")])
def test_impossible_batch_sizes_are_refused(max_rows: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scheduler(free, max_rows=max_rows)


def test_it_needs_no_torch() -> None:
    """It runs in a simulator too, so importing it must not bring torch in."""
    code = "import sys, workers.engine.scheduler; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
