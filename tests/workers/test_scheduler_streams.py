"""The scheduler over time: everybody finishes, whatever else comes in."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.jobs import SD3, A, B, Job, fair, free, knee, measured, names, scheduler, take
from workers.engine.cost import Stage
from workers.engine.scheduler import Priority, Scheduler


@pytest.mark.parametrize("oldest_share", [0.05, 0.0], ids=["share and ageing", "ageing alone"])
@pytest.mark.parametrize(
    "patient",
    [
        Job("patient", num_inference_steps=30, remaining_steps=30),
        Job("patient", priority=Priority.LOW),
        Job("patient", key=SD3),
        Job("patient", rows=2),
        Job("patient", deadline_s=-1.0),
    ],
    ids=["long", "low", "another model", "guided", "late"],
)
def test_nobody_starves_in_an_endless_stream(patient: Job, oldest_share: float) -> None:
    """As soon as a short request is done, the next one comes: without ageing the patient one would never be served."""
    patient = replace(patient)
    if patient.priority is Priority.LOW:
        patient.num_inference_steps = patient.remaining_steps = 3
    assert finishes(scheduler(fair, oldest_share=oldest_share), patient, in_flight=1, works=60_000)


def test_nobody_starves_under_overload() -> None:
    """Urgent short requests beyond all capacity, which age quicker than any long one: its share sees it through."""
    long = Job("long", num_inference_steps=30, remaining_steps=30, priority=Priority.LOW)
    assert finishes(scheduler(fair), replace(long), in_flight=30, works=2_000)
    assert not finishes(scheduler(fair, oldest_share=0.0), replace(long), in_flight=30, works=2_000)


def finishes(scheduling: Scheduler, patient: Job, in_flight: int, works: int) -> bool:
    """Whether it gets its picture within so many works, amid `in_flight` high-priority ones of a step each."""
    now_s, cost, jobs = 0.0, measured(fair), [patient]
    priority = Priority.NORMAL if in_flight == 1 else Priority.HIGH
    for _ in range(works):
        while len(jobs) < in_flight + 1:
            jobs.append(Job("short", arrival_s=now_s, num_inference_steps=1, remaining_steps=1, priority=priority))
        work = scheduling.next_work(jobs, now_s)
        assert work is not None
        now_s += cost.seconds(work.stage, work.requests[0].key, len(work.requests))
        for done in take(work):
            jobs.remove(done)
            if done is patient:
                return True
    return False


def test_the_oldest_gets_its_share_of_the_time() -> None:
    scheduling = scheduler(fair, oldest_share=0.25, ageing=0.0)
    old = Job("old", num_inference_steps=1000, remaining_steps=1000)
    served = [names(scheduling.next_work([old, Job("new", arrival_s=1.0)], 2.0)) for _ in range(100)]
    assert (
        sum("old" in batch for batch in served) == 20
    )  # one step, after four of the others have each put by a quarter of one


jobs_strategy = st.lists(
    st.builds(
        Job,
        key=st.sampled_from([A, B, SD3]),
        rows=st.sampled_from([1, 2]),
        arrival_s=st.floats(0, 100),
        num_inference_steps=st.just(50),
        remaining_steps=st.integers(0, 50),
        priority=st.sampled_from(Priority),
        deadline_s=st.none() | st.floats(0, 1000),
    ),
    min_size=1,
    max_size=20,
)
curves = st.sampled_from([free, fair, knee])


@given(jobs_strategy, curves, st.integers(2, 16), st.integers(1, 16))
def test_there_is_always_one_lawful_batch(
    jobs: list[Job], curve: Callable[[int], float], max_rows: int, cap: int
) -> None:
    scheduling = scheduler(curve, max_rows=max_rows)
    scheduling.lower_cap(A, cap)
    for now_s in (100.0, 200.0):
        work = scheduling.next_work(jobs, now_s)
        assert work is not None
        (key,) = {job.key for job in work.requests}
        assert len({id(job) for job in work.requests}) == len(work.requests) > 0
        if work.stage is Stage.VAE_DECODE:
            assert all(job.remaining_steps == 0 for job in work.requests)
            assert len(work.requests) <= max_rows
        else:
            assert all(job.remaining_steps > 0 for job in work.requests)
            rows = sum(job.rows for job in work.requests)
            assert len(work.requests) == 1 or rows <= (min(cap, max_rows) if key == A else max_rows)


@given(jobs_strategy, curves, st.integers(2, 16))
def test_everybody_finishes_and_twice_the_same_way(
    jobs: list[Job], curve: Callable[[int], float], max_rows: int
) -> None:
    def history() -> list[tuple[Stage, list[int]]]:
        scheduling, now_s, left, works = scheduler(curve, max_rows), 100.0, [replace(job) for job in jobs], []
        place = {id(job): i for i, job in enumerate(left)}
        while left:
            work = scheduling.next_work(left, now_s)
            assert work is not None
            works.append((work.stage, [place[id(job)] for job in work.requests]))
            now_s += 1
            done = take(work)
            left = [job for job in left if job not in done]
        return works

    first = history()
    assert len(first) <= sum(job.remaining_steps + 1 for job in jobs)
    assert history() == first
