"""What each word of a worker does in each state of a job, said once and said twice; and what `cancel` does there."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from app.jobs.errors import JobNotFoundError
from app.jobs.keys import PREFIX
from app.jobs.queue import Claim, JobQueue, Verdict
from app.jobs.schema import JobState
from tests.integration.queue_lab import (
    FINAL,
    LANE,
    PROGRESS,
    RESULT,
    RETRYABLE,
    claim_one,
    keyspace,
    numbered,
    pass_time,
    somebody_elses,
    submit,
)

OK, CANCEL, LOST = Verdict.OK, Verdict.CANCEL, Verdict.LOST
LATER_S = 2.0


class Stage:
    """A queue with one job, claimed by the worker whose words are tried."""

    def __init__(self, queue: JobQueue, valkey: Redis, claim: Claim) -> None:
        self.queue = queue
        self.valkey = valkey
        self.claim = claim

    async def cancel(self) -> None:
        await self.queue.cancel("default", self.claim.job.id)

    async def later(self) -> None:
        await pass_time(self.valkey, LATER_S)
        await self.queue.tick()

    async def state(self) -> JobState:
        return (await self.queue.read("default", self.claim.job.id)).state


async def held(stage: Stage) -> None:
    pass


async def expired_but_nobody_ticked(stage: Stage) -> None:
    await pass_time(stage.valkey, LATER_S)


async def expired(stage: Stage) -> None:
    await stage.later()


async def taken_by_another(stage: Stage) -> None:
    await stage.later()
    await claim_one(stage.queue, "token-2", "worker-2")


async def completed_by_another(stage: Stage) -> None:
    await taken_by_another(stage)
    await stage.queue.complete(somebody_elses(stage.claim, "token-2"), RESULT)


async def failed_by_another(stage: Stage) -> None:
    await taken_by_another(stage)
    await stage.queue.fail(somebody_elses(stage.claim, "token-2"), FINAL)


async def delayed_by_another(stage: Stage) -> None:
    await taken_by_another(stage)
    await stage.queue.fail(somebody_elses(stage.claim, "token-2"), RETRYABLE)


async def released_by_another(stage: Stage) -> None:
    await taken_by_another(stage)
    await stage.queue.release([somebody_elses(stage.claim, "token-2")])


async def canceling(stage: Stage) -> None:
    await stage.cancel()


async def canceling_at_another(stage: Stage) -> None:
    await taken_by_another(stage)
    await stage.cancel()


async def canceled_by_tick(stage: Stage) -> None:
    await stage.cancel()
    await stage.later()


async def canceled_while_queued_again(stage: Stage) -> None:
    await stage.later()
    await stage.cancel()


async def released(stage: Stage) -> None:
    await stage.queue.release([stage.claim])


async def delayed(stage: Stage) -> None:
    await stage.queue.fail(stage.claim, RETRYABLE)


async def retried(stage: Stage) -> None:
    await delayed(stage)
    await stage.later()


async def failed(stage: Stage) -> None:
    await stage.queue.fail(stage.claim, FINAL)


async def completed(stage: Stage) -> None:
    await stage.queue.complete(stage.claim, RESULT)


async def dead(stage: Stage) -> None:
    await stage.valkey.hset(PREFIX + "job:" + stage.claim.job.id, "crashes", 2)
    await stage.later()


async def unknown(stage: Stage) -> None:
    await stage.valkey.flushall()


async def renew(stage: Stage) -> Verdict:
    [verdict] = await stage.queue.renew([stage.claim])
    return verdict


async def progress(stage: Stage) -> Verdict:
    [verdict] = await stage.queue.progress([(stage.claim, PROGRESS)])
    return verdict


async def complete(stage: Stage) -> Verdict:
    return await stage.queue.complete(stage.claim, RESULT)


async def fail(stage: Stage) -> Verdict:
    return await stage.queue.fail(stage.claim, FINAL)


async def retry(stage: Stage) -> Verdict:
    return await stage.queue.fail(stage.claim, RETRYABLE)


async def release(stage: Stage) -> Verdict:
    [verdict] = await stage.queue.release([stage.claim])
    return verdict


Step = Callable[[Stage], Awaitable[None]]
Word = Callable[[Stage], Awaitable[Verdict]]
WORDS: tuple[Word, ...] = (renew, progress, complete, fail, retry, release)

# Where the job is -> what renew, progress, complete, fail (final), fail (retryable) and release hear.
TABLE: dict[Step, tuple[Verdict, ...]] = {
    held: (OK, OK, OK, OK, OK, OK),
    expired_but_nobody_ticked: (OK, OK, OK, OK, OK, OK),
    expired: (LOST, LOST, LOST, LOST, LOST, OK),  # it was only out of reach, and clears the job
    taken_by_another: (LOST, LOST, LOST, LOST, LOST, LOST),
    completed_by_another: (LOST, LOST, LOST, LOST, LOST, LOST),
    failed_by_another: (LOST, LOST, LOST, LOST, LOST, LOST),
    delayed_by_another: (LOST, LOST, LOST, LOST, LOST, LOST),
    released_by_another: (LOST, LOST, LOST, LOST, LOST, LOST),
    canceling: (CANCEL, CANCEL, CANCEL, CANCEL, CANCEL, CANCEL),
    canceling_at_another: (LOST, LOST, LOST, LOST, LOST, LOST),
    canceled_by_tick: (CANCEL, CANCEL, CANCEL, CANCEL, CANCEL, CANCEL),
    canceled_while_queued_again: (LOST, LOST, LOST, LOST, LOST, LOST),
    released: (LOST, LOST, LOST, LOST, LOST, OK),
    delayed: (LOST, LOST, LOST, OK, OK, LOST),
    retried: (LOST, LOST, LOST, LOST, LOST, LOST),
    failed: (LOST, LOST, LOST, OK, OK, LOST),
    completed: (LOST, LOST, OK, LOST, LOST, LOST),
    dead: (LOST, LOST, LOST, LOST, LOST, LOST),
    unknown: (LOST, LOST, LOST, LOST, LOST, LOST),
}
STATE_AFTER: dict[Word, JobState] = {
    renew: JobState.IN_PROGRESS,
    progress: JobState.IN_PROGRESS,
    complete: JobState.COMPLETED,
    fail: JobState.FAILED,
    retry: JobState.DELAYED,
    release: JobState.QUEUED,
}


@pytest.fixture
async def stage(queue: JobQueue, valkey: Redis) -> Stage:
    await submit(queue, 1)
    return Stage(queue, valkey, await claim_one(queue))


def _cases() -> list[object]:
    return [
        pytest.param(where, word, verdict, id=f"{where.__name__}-{word.__name__}")
        for where, verdicts in TABLE.items()
        for word, verdict in zip(WORDS, verdicts, strict=True)
    ]


@pytest.mark.parametrize(("where", "word", "verdict"), _cases())
async def test_a_word_is_heard_or_fenced_and_saying_it_twice_is_saying_it_once(
    stage: Stage, where: Step, word: Word, verdict: Verdict
) -> None:
    await where(stage)
    before = await keyspace(stage.valkey)

    assert await word(stage) is verdict

    after = await keyspace(stage.valkey)
    if where in (held, expired_but_nobody_ticked) or (where is expired and word is release):
        assert await stage.state() is STATE_AFTER[word]
    elif where is canceling:
        assert await stage.state() is JobState.CANCELED
        assert (await stage.queue.read("default", stage.claim.job.id)).result is None
        assert after["lanes"] == {LANE}
        assert "lease" not in after
    else:
        assert after == before
    await asyncio.sleep(0.002)  # so that a second effect would carry another time
    assert await word(stage) is verdict
    assert await keyspace(stage.valkey) == after


async def test_each_job_of_a_call_gets_its_own_verdict(queue: JobQueue, valkey: Redis) -> None:
    await submit(queue, 1, 2, 3)
    claims = await queue.claim("worker-1", "token-1", [LANE], 3)
    await queue.complete(claims[0], RESULT)
    await queue.cancel("default", claims[1].job.id)
    assert await queue.progress([(claim, PROGRESS) for claim in claims]) == [LOST, CANCEL, OK]
    assert await queue.renew(claims) == [LOST, CANCEL, OK]
    assert await queue.release(claims) == [LOST, CANCEL, OK]


async def test_nothing_asked_is_nothing_said(queue: JobQueue) -> None:
    assert await queue.renew([]) == await queue.progress([]) == await queue.release([]) == []


async def test_only_renew_extends_a_lease(stage: Stage) -> None:
    async def lease_left_ms() -> float:
        seconds, microseconds = await stage.valkey.time()
        ends_ms = await stage.valkey.zscore(PREFIX + "lease", stage.claim.job.id)
        assert ends_ms is not None
        return ends_ms - seconds * 1000 - microseconds / 1000

    await pass_time(stage.valkey, 0.6)
    await progress(stage)
    assert await lease_left_ms() <= 400
    await renew(stage)
    assert 600 < await lease_left_ms() <= 1000


@pytest.mark.parametrize(
    ("where", "state"),
    [
        (held, JobState.CANCELING),
        (canceling, JobState.CANCELING),
        (released, JobState.CANCELED),
        (expired, JobState.CANCELED),
        (delayed, JobState.CANCELED),
        (canceled_by_tick, JobState.CANCELED),
        (completed, JobState.COMPLETED),
        (failed, JobState.FAILED),
        (dead, JobState.DEAD),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_cancel_ends_what_waits_warns_what_runs_and_leaves_what_ended(
    stage: Stage, where: Step, state: JobState
) -> None:
    await where(stage)
    before = await keyspace(stage.valkey)

    await stage.cancel()

    after = await keyspace(stage.valkey)
    assert await stage.state() is state
    if state is JobState.CANCELED:
        record = await stage.queue.read("default", stage.claim.job.id)
        assert (record.finished_ms is not None, record.result, record.error) == (True, None, None)
        assert after.keys().isdisjoint({"queue:" + LANE, "delayed", "lease"})
    if where in (completed, failed, dead, canceled_by_tick):
        assert after == before
    await stage.cancel()
    assert await keyspace(stage.valkey) == after
    assert await stage.queue.claim("worker-3", "token-3", [LANE], 1) == []


async def test_a_job_never_claimed_is_canceled_at_once(queue: JobQueue, valkey: Redis) -> None:
    await submit(queue, 1, 2)
    await queue.cancel("default", numbered(1).id)
    assert (await queue.read("default", numbered(1).id)).state is JobState.CANCELED
    assert (await claim_one(queue)).job == numbered(2)


async def test_canceling_another_tenants_running_job_does_not_touch_it(stage: Stage) -> None:
    before = await keyspace(stage.valkey)
    with pytest.raises(JobNotFoundError):
        await stage.queue.cancel("intruder", stage.claim.job.id)
    assert await keyspace(stage.valkey) == before
