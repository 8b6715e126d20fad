"""The life of jobs as a plain Python model, against the scripts on a real server.

Hypothesis plays random calls, each said once or twice, by workers that may have lost their lease long ago; after each
one the server must hold exactly what the model holds. A few seconds in the suite; to look longer:

    DARKROOM_TEST_EXAMPLES=5000 python -m pytest tests/integration/test_queue_machine.py --timeout 3600

Time is the model's: `wait` brings the ends of leases and delays forward on the server. No sum of waits equals a lease
or a delay, so the milliseconds that really pass decide nothing.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Iterator
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis.asyncio import Redis

from app.jobs.errors import JobNotFoundError, KeyReusedError, QueueFullError, TenantFullError
from app.jobs.keys import PREFIX
from app.jobs.queue import Claim, Idempotency, JobQueue, written
from app.jobs.schema import TERMINAL_STATES, ImageJob, JobError, JobState, Priority
from app.jobs.scripts import connect
from app.jobs.upkeep import Upkeep
from tests.integration.fair_model import ORDER, Flow
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
from tests.integration.queue_model import LEASE_S, MAX_ATTEMPTS, MAX_CRASHES, MAX_OPEN, MAX_QUEUED, Job, Model

EXAMPLES = int(os.environ.get("DARKROOM_TEST_EXAMPLES", "60"))
STEPS = 40
WAITS_S, DELAYS_S = (300, 1100), (50, 500)
PICTURES_S, RECORD_S = 700, 1000
TENANTS = ("ours", "theirs")
WORKERS = ("worker-1", "worker-2")
LANES = (LANE, OTHER_LANE)
SETS_OF_LANES = ((LANE,), (OTHER_LANE,), (LANE, OTHER_LANE), (OTHER_LANE, LANE))
FIELDS = (
    "state", "tenant", "lane", "priority", "cost_ms", "seq", "token", "attempts", "crashes", "kept_for", "progress",
    "result", "error",
)  # fmt: skip
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
            max_open=MAX_OPEN,
            max_attempts=MAX_ATTEMPTS,
            max_crashes=MAX_CRASHES,
        )
        self._client = client
        self._upkeep = Upkeep(client)
        self._model = Model()
        self._ended: dict[str, dict[str, str]] = {}
        self._tokens = self._submitted = 0
        self._do(client.flushall())

    def _do(self, call: Awaitable[T]) -> T:
        async def wait() -> T:
            return await call

        return self._runner.run(wait())

    def _job(self, claim: Claim) -> Job:
        """The claim's job; one that nobody knows where it is forgotten."""
        return self._model.jobs.get(claim.job.id) or Job(claim.job.id, "", "", Priority.LOW, 0, 0, 0)

    @initialize(jobs=st.lists(st.tuples(st.sampled_from(LANES), st.sampled_from(Priority)), min_size=2, max_size=6))
    def start(self, jobs: list[tuple[str, Priority]]) -> None:
        for lane, priority in jobs:
            self.submit("ours", lane, priority, 1, None)

    @rule(
        tenant=st.sampled_from(TENANTS),
        lane=st.sampled_from(LANES),
        priority=st.sampled_from(Priority),
        cost_s=st.sampled_from((0.7, 1, 3)),
        key=st.none() | st.tuples(st.sampled_from(("a", "b")), st.sampled_from(("body", "other body"))),
    )
    def submit(self, tenant: str, lane: str, priority: Priority, cost_s: float, key: tuple[str, str] | None) -> None:
        self._submitted += 1
        self._submit(numbered(self._submitted, tenant=tenant, model=lane, priority=priority), cost_s, key)

    @rule(claim=held)
    def submit_again(self, claim: Claim) -> None:
        self._submit(claim.job, 1, None)

    def _submit(self, job: ImageJob, cost_s: float, key: tuple[str, str] | None) -> None:
        expected = self._model.submit(job.id, job.tenant, job.model, job.priority, round(cost_s * 1000), key)
        try:
            given = self._do(self._queue.submit(job, cost_s=cost_s, idempotency=Idempotency(*key) if key else None))
        except QueueFullError:
            assert expected == "full"
        except TenantFullError:
            assert expected == "tenant full"
        except KeyReusedError:
            assert expected == "reused"
        else:
            assert given == expected
        # Places that are kept for who was refused depend on how fast all went: test_queue_caps.py.
        lines = (f"promised:lane:{job.model}", f"promised:tenant:{job.tenant}")
        self._do(self._client.delete(*(PREFIX + line for line in lines)))

    @rule(
        target=held,
        worker=st.sampled_from(WORKERS),
        lanes=st.sampled_from(SETS_OF_LANES),
        most=st.integers(1, 3),
        idle=st.booleans(),
    )
    def claim(self, worker: str, lanes: tuple[str, ...], most: int, idle: bool) -> Any:
        self._tokens += 1
        return multiple(*self._claim(f"token-{self._tokens}", worker, lanes, most, idle))

    @rule(target=held, claim=held, lanes=st.sampled_from(SETS_OF_LANES), most=st.integers(1, 3))
    def claim_again(self, claim: Claim, lanes: tuple[str, ...], most: int) -> Any:
        return multiple(*self._claim(claim.token, WORKERS[0], lanes, most, idle=True))

    def _claim(self, token: str, worker: str, lanes: tuple[str, ...], most: int, idle: bool) -> list[Claim]:
        expected = self._model.claim(token, worker, lanes, most, idle=idle)
        claims = self._do(self._queue.claim(worker, token, lanes, most, idle=idle))
        assert ids(claims) == [job.id for job in expected]
        for claim, job in zip(claims, expected, strict=True):
            assert claim.started_before == (job.starts > 1)
            assert claim.alone == (job.crashes > 0)
            assert claim.lost_steps == (PROGRESS.step if job.lost_steps else 0)
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
        expected = [self._model.report(self._job(claim), claim.token) for claim in claims]
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

    @precondition(lambda self: self._model.jobs)
    @rule(data=st.data(), tenant=st.sampled_from(TENANTS))
    def cancel(self, data: st.DataObject, tenant: str) -> None:
        job = data.draw(st.sampled_from(list(self._model.jobs.values())))
        if job.tenant == tenant:
            self._model.cancel(job)
            self._do(self._queue.cancel(tenant, job.id))
        else:
            with pytest.raises(JobNotFoundError):
                self._do(self._queue.cancel(tenant, job.id))

    @rule(seconds=st.sampled_from(WAITS_S), ticks=st.integers(0, 2), ticked=st.booleans())
    def wait(self, seconds: int, ticks: int, ticked: bool) -> None:
        self._model.now += seconds
        if ticked and self._model.ticked is not None:
            self._model.ticked = self._model.now
        self._do(pass_time(self._client, seconds, ticked=ticked))
        for _ in range(ticks):
            assert self._do(self._queue.tick()) == self._model.tick()

    @rule(tenant=st.sampled_from(TENANTS), weight=st.sampled_from((0.5, 3)))
    def weigh(self, tenant: str, weight: float) -> None:
        self._model.fair.weights[tenant] = weight
        self._do(self._upkeep.weigh(tenant, weight))

    @rule()
    def expire(self) -> None:
        expected = self._model.expire(PICTURES_S, RECORD_S)
        given = self._do(self._upkeep.expire(pictures_s=PICTURES_S, record_s=RECORD_S))
        assert sorted(given.job_ids) == sorted(expected)

    @precondition(lambda self: self._model.jobs)
    @rule(data=st.data(), tenant=st.sampled_from(TENANTS))
    def purge(self, data: st.DataObject, tenant: str) -> None:
        job = data.draw(st.sampled_from(list(self._model.jobs.values())))
        expected = self._model.purge(job) if job.tenant == tenant else "MISSING"
        assert self._do(self._upkeep.purge(tenant, [job.id])) == [expected]

    @rule(claim=held)
    def revive(self, claim: Claim) -> None:
        expected = self._model.revive(self._job(claim))
        assert self._do(self._upkeep.revive([claim.job.id])) == expected
        self._ended.pop("job:" + claim.job.id, None) if expected else None

    @invariant()
    def the_server_agrees(self) -> None:
        keys = self._do(keyspace(self._client))
        self._holds_what_the_model_holds(keys)
        self._has_each_job_in_one_place(keys)
        self._changes_nothing_that_ended(keys)
        self._counts_what_it_holds(keys)

    def _holds_what_the_model_holds(self, keys: dict[str, Any]) -> None:
        jobs = self._model.jobs.values()
        fair = self._model.fair
        expected: dict[str, Any] = {f"job:{job.id}": _fields(job) for job in jobs}
        for job in jobs:
            expected.setdefault(f"jobs:{job.tenant}", {})[job.id] = job.seq
            match job.state:
                case JobState.QUEUED if job.place == "queue":
                    expected.setdefault(f"queue:{job.lane}:{_flow(job.flow)}", {})[job.id] = job.seq
                case JobState.QUEUED:
                    expected.setdefault(f"{job.place}:{job.lane}", {})[job.id] = job.seq
                case JobState.IN_PROGRESS | JobState.CANCELING:
                    expected.setdefault("lease", set()).add(job.id)
                case JobState.DELAYED | JobState.DEAD:
                    expected.setdefault(job.state.value, set()).add(job.id)
                case _:
                    expected.setdefault("expired" if job.expired else "ended", set()).add(job.id)
        for token, (batch, kept_until) in self._model.claims.items():
            if self._model.now < kept_until:
                expected[f"claim:{token}"] = ["known", *(job.id for job in batch)]
        for (tenant, key), (job_id, body) in self._model.keys.items():
            expected[f"idem:{tenant}:{key}"] = {"id": job_id, "body": body}
        for (lane, flow), start in fair.starts.items():
            first = min(job.seq for job in self._model.waiting("queue", (lane,)) if job.flow == flow)
            rank, tenant = _flow(flow).split(":")
            expected.setdefault(f"ready:{lane}", {})[f"{rank}:{first:016}:{tenant}"] = start
        for (lane, flow), debt in fair.debts.items():
            expected.setdefault(f"debts:{lane}", {})[_flow(flow)] = debt
        if fair.clocks:
            expected["clocks"] = {lane: str(time) for lane, time in fair.clocks.items()}
        passed_over = {"ticked", "pardon", "totals", "weights", "lanes", "format"}
        shown = {
            name: _shown(name, value)
            for name, value in keys.items()
            if name not in passed_over and not name.startswith(("lane:", "tenant:", "round:"))
        }
        assert shown == expected | {"seq": str(self._model.totals["submitted"])}

    def _has_each_job_in_one_place(self, keys: dict[str, Any]) -> None:
        places = ("queue:", "front:", "suspects:", "delayed", "lease", "ended", "expired", "dead")
        listed = [job_id for name, members in keys.items() if name.startswith(places) for job_id in members]
        assert sorted(listed) == sorted(name.removeprefix("job:") for name in keys if _is_job(name))

    def _changes_nothing_that_ended(self, keys: dict[str, Any]) -> None:
        ended = {
            name: {field: value for field, value in job.items() if field != "expired_ms"}
            for name, job in keys.items()
            if _is_job(name) and not _is_open(job)
        }
        assert all(ended[name] == job for name, job in self._ended.items() if name in keys)
        assert all(("result" in job) == (job["state"] == JobState.COMPLETED) for job in ended.values())
        self._ended = ended

    def _counts_what_it_holds(self, keys: dict[str, Any]) -> None:
        stats = self._do(self._queue.stats())
        held, delayed, dead = (len(keys.get(place, ())) for place in ("lease", "delayed", "dead"))
        assert (stats.in_progress, stats.delayed, stats.dead) == (held, delayed, dead)
        assert {name: total for name, total in stats.totals.items() if total} == +self._model.totals
        for lane, numbers in stats.lanes.items():
            queued = self._model.queued(lane)
            assert (numbers.queued, numbers.work_s) == (len(queued), sum(job.cost_ms for job in queued) / 1000)
            by_priority = Counter(job.priority for job in queued)
            leased = (JobState.IN_PROGRESS, JobState.CANCELING)
            jobs = [job for job in self._model.jobs.values() if job.lane == lane]
            assert numbers.in_progress == sum(job.state in leased for job in jobs)
            assert numbers.queued_by_priority == {priority: by_priority[priority] for priority in Priority}
        for tenant in TENANTS:
            jobs = self._model.open(tenant)
            counts = keys.get(f"tenant:{tenant}", {})
            assert int(counts.get("open", 0)) == len(jobs)
            assert int(counts.get("work_ms", 0)) == sum(job.cost_ms for job in jobs)


def _is_job(name: str) -> bool:
    return name.startswith("job:")


def _is_open(job: dict[str, str]) -> bool:
    return JobState(job["state"]) not in TERMINAL_STATES


def _flow(flow: Flow) -> str:
    return f"{ORDER.index(flow[0]) + 1}:{flow[1]}"


def _fields(job: Job) -> dict[str, Any]:
    """What the model says about a job's hash; None: no such field."""
    return {
        "state": job.state,
        "tenant": job.tenant,
        "lane": job.lane,
        "priority": job.priority,
        "cost_ms": str(job.cost_ms),
        "seq": str(job.seq),
        "token": job.token,
        "attempts": str(job.attempts),
        "crashes": str(job.crashes),
        "kept_for": job.kept_for,
        "progress": written(PROGRESS) if job.progress else None,
        "result": written(RESULT) if job.state is JobState.COMPLETED else None,
        "error": job.error.model_dump_json() if job.error else None,
    }


def _shown(name: str, value: Any) -> Any:
    """The part of a key's value that the model says something about."""
    if _is_job(name):
        return {said: value.get(said) for said in FIELDS}
    return set(value) if name in ("delayed", "dead", "ended", "expired") else value


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
                # Making a failure smaller can take minutes: for whoever looks, not for the suite.
                phases=set(Phase) if "DARKROOM_TEST_EXAMPLES" in os.environ else {Phase.explicit, Phase.generate},
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )
    finally:
        runner.run(client.aclose())
