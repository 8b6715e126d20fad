"""The life of jobs as a plain Python model, against the scripts on a real server.

Hypothesis plays random calls, each said once or twice, by workers that may have lost their lease long ago; after each
one the server must hold exactly what the model holds. A few seconds in the suite; to look longer:

    DARKROOM_TEST_EXAMPLES=5000 python -m pytest tests/integration/test_queue_machine.py --timeout 3600

Time is the model's: `wait` brings the ends of leases and delays forward on the server. No sum of waits equals a lease
or a delay, so the milliseconds that really pass decide nothing.
"""

import asyncio
import os
from collections.abc import Awaitable, Iterator
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from redis.asyncio import Redis

from app.jobs.errors import JobNotFoundError, QueueFullError
from app.jobs.queue import Claim, JobQueue
from app.jobs.schema import TERMINAL_STATES, ImageJob, JobError, JobState
from app.jobs.scripts import connect
from tests.integration.queue_lab import (
    FINAL,
    LANE,
    OTHER_LANE,
    PROGRESS,
    RESULT,
    RETRYABLE,
    ids,
    keyspace,
    numbered,
    pass_time,
)
from tests.integration.queue_model import LEASE_S, MAX_ATTEMPTS, MAX_CRASHES, MAX_QUEUED, Job, Model

EXAMPLES = int(os.environ.get("DARKROOM_TEST_EXAMPLES", "60"))
STEPS = 40
WAITS_S, DELAYS_S = (300, 1100), (50, 500)
TENANTS = ("ours", "theirs")
SETS_OF_LANES = ((LANE,), (OTHER_LANE,), (LANE, OTHER_LANE), (OTHER_LANE, LANE))
PLACES = ("queue:" + LANE, "queue:" + OTHER_LANE, "delayed", "lease")
FIELDS = ("state", "tenant", "lane", "seq", "token", "attempts", "crashes", "progress", "result", "error")
T = TypeVar("T")


class QueueMachine(RuleBasedStateMachine):
    """Every call to both; `held` are all claims that were ever made, also those long lost."""

    held: "Bundle[Claim]" = Bundle("held")

    def __init__(self, runner: asyncio.Runner, client: Redis) -> None:
        super().__init__()
        self._runner = runner
        self._client = client
        self._queue = JobQueue(
            client,
            lease_s=LEASE_S,
            max_queued=MAX_QUEUED,
            max_attempts=MAX_ATTEMPTS,
            max_crashes=MAX_CRASHES,
        )
        self._model = Model()
        self._ended: dict[str, dict[str, str]] = {}
        self._tokens = 0
        self._do(client.flushall())

    def _do(self, call: Awaitable[T]) -> T:
        async def wait() -> T:
            return await call

        return self._runner.run(wait())

    def _job(self, claim: Claim) -> Job:
        return self._model.jobs[claim.job.id]

    @initialize(lanes=st.lists(st.sampled_from((LANE, OTHER_LANE)), min_size=2, max_size=6))
    def start(self, lanes: list[str]) -> None:
        for lane in lanes:
            self.submit("ours", lane)

    @rule(tenant=st.sampled_from(TENANTS), lane=st.sampled_from((LANE, OTHER_LANE)))
    def submit(self, tenant: str, lane: str) -> None:
        self._submit(numbered(len(self._model.jobs), tenant=tenant, model=lane))

    @rule(claim=held)
    def submit_again(self, claim: Claim) -> None:
        self._submit(claim.job)

    def _submit(self, job: ImageJob) -> None:
        accepted = self._model.submit(job.id, job.tenant, job.model)
        try:
            self._do(self._queue.submit(job))
        except QueueFullError:
            assert not accepted
        else:
            assert accepted

    @rule(target=held, lanes=st.sampled_from(SETS_OF_LANES), most=st.integers(1, 3))
    def claim(self, lanes: tuple[str, ...], most: int) -> Any:
        self._tokens += 1
        return multiple(*self._claim(f"token-{self._tokens}", lanes, most))

    @rule(target=held, claim=held, lanes=st.sampled_from(SETS_OF_LANES), most=st.integers(1, 3))
    def claim_again(self, claim: Claim, lanes: tuple[str, ...], most: int) -> Any:
        return multiple(*self._claim(claim.token, lanes, most))

    def _claim(self, token: str, lanes: tuple[str, ...], most: int) -> list[Claim]:
        expected = self._model.claim(token, lanes, most)
        claims = self._do(self._queue.claim("worker-1", token, lanes, most))
        assert ids(claims) == [job.id for job in expected]
        for claim, job in zip(claims, expected, strict=True):
            assert claim.started_before == (job.starts > 1)
            assert 0 <= claim.age_s - (self._model.now - job.submitted) < min(WAITS_S)
        return claims

    @rule(claim=held, more=st.lists(held, max_size=2))
    def renew(self, claim: Claim, more: list[Claim]) -> None:
        claims = [claim, *more]
        expected = [self._model.renew(self._job(claim), claim.token) for claim in claims]
        assert self._do(self._queue.renew(claims)) == expected

    @rule(claim=held, more=st.lists(held, max_size=2))
    def progress(self, claim: Claim, more: list[Claim]) -> None:
        claims = [claim, *more]
        expected = [self._model.progress(self._job(claim), claim.token) for claim in claims]
        assert self._do(self._queue.progress([(claim, PROGRESS) for claim in claims])) == expected

    @rule(claim=held, more=st.lists(held, max_size=2))
    def release(self, claim: Claim, more: list[Claim]) -> None:
        claims = [claim, *more]
        expected = [self._model.release(self._job(claim), claim.token) for claim in claims]
        assert self._do(self._queue.release(claims)) == expected

    @rule(claim=held, times=st.integers(1, 2))
    def complete(self, claim: Claim, times: int) -> None:
        for _ in range(times):
            expected = self._model.complete(self._job(claim), claim.token)
            assert self._do(self._queue.complete(claim, RESULT)) is expected

    @rule(
        claim=held,
        error=st.sampled_from((RETRYABLE, FINAL)),
        delay_s=st.sampled_from(DELAYS_S),
        times=st.integers(1, 2),
    )
    def fail(self, claim: Claim, error: JobError, delay_s: int, times: int) -> None:
        for _ in range(times):
            expected = self._model.fail(self._job(claim), claim.token, error, delay_s)
            assert self._do(self._queue.fail(claim, error, retry_after_s=delay_s)) is expected

    @rule(data=st.data(), tenant=st.sampled_from(TENANTS))
    def cancel(self, data: st.DataObject, tenant: str) -> None:
        job = data.draw(st.sampled_from(list(self._model.jobs.values())))
        if job.tenant == tenant:
            self._model.cancel(job)
            self._do(self._queue.cancel(tenant, job.id))
        else:
            with pytest.raises(JobNotFoundError):
                self._do(self._queue.cancel(tenant, job.id))

    @rule(seconds=st.sampled_from(WAITS_S), ticks=st.integers(0, 2))
    def wait(self, seconds: int, ticks: int) -> None:
        self._model.now += seconds
        self._do(pass_time(self._client, seconds))
        for _ in range(ticks):
            assert self._do(self._queue.tick()) == self._model.tick()

    @invariant()
    def the_server_agrees(self) -> None:
        keys = self._do(keyspace(self._client))
        self._holds_what_the_model_holds(keys)
        self._has_each_job_in_one_place(keys)
        self._changes_nothing_that_ended(keys)
        self._counts_what_it_holds(keys)

    def _holds_what_the_model_holds(self, keys: dict[str, Any]) -> None:
        jobs = self._model.jobs.values()
        expected: dict[str, Any] = {f"job:{job.id}": _fields(job) for job in jobs}
        for job in jobs:
            expected.setdefault(f"tenant:{job.tenant}:jobs", {})[job.id] = job.seq
            expected.setdefault("lanes", set()).add(job.lane)
            match job.state:
                case JobState.QUEUED:
                    expected.setdefault(f"queue:{job.lane}", {})[job.id] = job.seq
                case JobState.IN_PROGRESS | JobState.CANCELING:
                    expected.setdefault("lease", set()).add(job.id)
                case JobState.DELAYED | JobState.DEAD:
                    expected.setdefault(job.state.value, set()).add(job.id)
        for token, (batch, kept_until) in self._model.claims.items():
            if self._model.now < kept_until:
                expected[f"claim:{token}"] = [job.id for job in batch]
        if jobs:
            expected["seq"] = str(len(jobs))
        assert {name: _shown(name, value) for name, value in keys.items()} == expected

    def _has_each_job_in_one_place(self, keys: dict[str, Any]) -> None:
        listed = [job_id for place in PLACES for job_id in keys.get(place, ())]
        open_jobs = [name.removeprefix("job:") for name, job in keys.items() if _is_job(name) and _is_open(job)]
        assert sorted(listed) == sorted(open_jobs)

    def _changes_nothing_that_ended(self, keys: dict[str, Any]) -> None:
        ended = {name: job for name, job in keys.items() if _is_job(name) and not _is_open(job)}
        assert self._ended.items() <= ended.items()
        assert all(("result" in job) == (job["state"] == JobState.COMPLETED) for job in ended.values())
        self._ended = ended

    def _counts_what_it_holds(self, keys: dict[str, Any]) -> None:
        stats = self._do(self._queue.stats())
        held, delayed, dead = (len(keys.get(place, ())) for place in ("lease", "delayed", "dead"))
        assert (stats.in_progress, stats.delayed, stats.dead) == (held, delayed, dead)
        queued = {lane: numbers.queued for lane, numbers in stats.lanes.items()}
        assert queued == {lane: len(keys.get(f"queue:{lane}", ())) for lane in keys.get("lanes", ())}


def _is_job(name: str) -> bool:
    return name.startswith("job:")


def _is_open(job: dict[str, str]) -> bool:
    return JobState(job["state"]) not in TERMINAL_STATES


def _fields(job: Job) -> dict[str, Any]:
    """What the model says about a job's hash; None: no such field."""
    return {
        "state": job.state,
        "tenant": job.tenant,
        "lane": job.lane,
        "seq": str(job.seq),
        "token": job.token,
        "attempts": str(job.attempts),
        "crashes": str(job.crashes),
        "progress": PROGRESS.model_dump_json() if job.progress else None,
        "result": RESULT.model_dump_json() if job.state is JobState.COMPLETED else None,
        "error": job.error.model_dump_json() if job.error else None,
    }


def _shown(name: str, value: Any) -> Any:
    """The part of a key's value that the model says something about."""
    if _is_job(name):
        return {said: value.get(said) for said in FIELDS}
    return set(value) if name in ("delayed", "dead") else value


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


def test_the_scripts_live_up_to_the_model(valkey_url: str, runner: asyncio.Runner) -> None:
    client = connect(valkey_url)
    try:
        run_state_machine_as_test(
            lambda: QueueMachine(runner, client),  # type: ignore[arg-type]  # any factory will do
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )
    finally:
        runner.run(client.aclose())
