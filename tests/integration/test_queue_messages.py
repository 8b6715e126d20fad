"""Messages that cannot be read: another version of Darkroom wrote them, or something spoiled them."""

import json
from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from app.jobs.errors import UnreadableJobError
from app.jobs.keys import PREFIX
from app.jobs.queue import JobQueue, Page
from app.jobs.schema import ErrorCode, JobState, Priority
from tests.integration.queue_lab import (
    LANE,
    RESULT,
    WORKER,
    claim_one,
    fences,
    ids,
    keyspace,
    numbered,
    pass_time,
    submit,
)

Spoil = Callable[[str], str | bytes]
LATER_FIELDS = {"priority", "deadline_s", "warnings"}


def newer(message: str) -> str:
    return json.dumps(json.loads(message) | {"style": "film noir"})


def older(message: str) -> str:
    fields = json.loads(message)
    fields.popitem()
    return json.dumps(fields)


def other_type(message: str) -> str:
    return json.dumps({field: [] for field in json.loads(message)})


def not_json(message: str) -> str:
    return message[:-1]


def empty(message: str) -> str:
    return ""


def not_utf8(message: str) -> bytes:
    return message.encode().replace(b"red", b"r\xe9d").replace(b"worker", b"w\xf6rker")


SPOILERS = pytest.mark.parametrize("spoil", [older, other_type, not_json, empty, not_utf8])


async def spoil_field(valkey: Redis, number: int, field: str, spoil: Spoil) -> None:
    key = PREFIX + "job:" + numbered(number).id
    await valkey.hset(key, field, spoil(str(await valkey.hget(key, field))))


@SPOILERS
async def test_a_claim_fails_the_job_it_cannot_read_and_returns_the_others(
    queue: JobQueue, valkey: Redis, spoil: Spoil
) -> None:
    await submit(queue, 1, 2, 3)
    await spoil_field(valkey, 2, "spec", spoil)
    claims = await queue.claim("worker-1", "token-1", [LANE], 3)
    assert ids(claims) == [numbered(1).id, numbered(3).id]
    keys = await keyspace(valkey)
    assert keys["lease"] == {numbered(1).id, numbered(3).id}
    unreadable = keys["job:" + numbered(2).id]
    assert unreadable["state"] == JobState.FAILED
    assert json.loads(unreadable["error"])["code"] == ErrorCode.INTERNAL_ERROR
    assert fences(await queue.claim("worker-1", "token-1", [LANE], 3)) == fences(claims)


async def test_a_job_of_a_newer_version_is_left_to_a_newer_worker(queue: JobQueue, valkey: Redis) -> None:
    [job, other] = await submit(queue, 1, 2)
    spec = str(await valkey.hget(PREFIX + "job:" + job.id, "spec"))
    await spoil_field(valkey, 1, "spec", newer)
    for number in range(5):
        claims = await queue.claim("worker-1", f"token-{number}", [LANE], 2)
        assert ids(claims) == [other.id] * (number == 0)
        for claim in claims:
            await queue.complete(claim, RESULT)
        keys = await keyspace(valkey)
        assert (keys["delayed"].keys(), keys["job:" + job.id]["attempts"]) == ({job.id}, "0")
        await pass_time(valkey, 6)
        await queue.tick()
    await valkey.hset(PREFIX + "job:" + job.id, "spec", spec)  # as a newer worker reads it
    assert ids(await queue.claim("worker-2", "token", [LANE], 1)) == [job.id]


async def test_what_a_newer_version_added_is_passed_over_where_it_is_only_shown(queue: JobQueue, valkey: Redis) -> None:
    [job] = await submit(queue, 1)
    await queue.complete(await claim_one(queue), RESULT)
    for field in ("spec", "result"):
        await spoil_field(valkey, 1, field, newer)
    record = await queue.read("default", job.id)
    assert (record.job, record.result) == (job, RESULT)
    await queue.heartbeat(WORKER, forget_after_s=6)
    await valkey.set(PREFIX + "worker:worker-1", newer(str(await valkey.get(PREFIX + "worker:worker-1"))))
    assert (await queue.stats()).workers == (WORKER,)


async def test_a_message_without_anything_new_is_written_as_before_it_came(queue: JobQueue, valkey: Redis) -> None:
    [job, urgent] = [*await submit(queue, 1), *await submit(queue, 2, priority="high")]
    written = [json.loads(str(await valkey.hget(PREFIX + "job:" + each.id, "spec"))) for each in (job, urgent)]
    assert LATER_FIELDS.isdisjoint(written[0])
    assert written[1].keys() - written[0].keys() == {"priority"}


async def test_a_job_of_before_priorities_and_deadlines_is_claimed_and_read(queue: JobQueue, valkey: Redis) -> None:
    [job] = await submit(queue, 1)

    def before(spec: str) -> str:
        return json.dumps({name: value for name, value in json.loads(spec).items() if name not in LATER_FIELDS})

    await spoil_field(valkey, 1, "spec", before)
    assert (await claim_one(queue)).job == job
    assert (await queue.read("default", job.id)).job == job
    assert (job.priority, job.deadline_s) == (Priority.NORMAL, None)


async def test_a_claim_of_one_job_without_any_spec_returns_none(queue: JobQueue, valkey: Redis) -> None:
    await submit(queue, 1)
    await valkey.hdel(PREFIX + "job:" + numbered(1).id, "spec")
    assert await queue.claim("worker-1", "token-1", [LANE], 3) == []
    assert (await queue.stats()).in_progress == 0


@SPOILERS
@pytest.mark.parametrize("field", ["spec", "result"])
async def test_a_record_that_cannot_be_read_is_an_error_of_its_own_and_missing_in_lists(
    queue: JobQueue, valkey: Redis, spoil: Spoil, field: str
) -> None:
    jobs = await submit(queue, 1, 2, 3)
    await queue.complete(await claim_one(queue), RESULT)
    await spoil_field(valkey, 1, field, spoil)
    with pytest.raises(UnreadableJobError):
        await queue.read("default", numbered(1).id)
    page = await queue.page("default", limit=3)
    assert [record.job for record in page.records] == [jobs[2], jobs[1]]
    assert page.next_after is None
    assert await queue.page("default", limit=1, after=numbered(2).id) == Page(records=(), next_after=None)


@pytest.mark.parametrize(("field", "value"), [("state", "melting"), ("attempts", "many"), ("started_ms", "noon")])
async def test_a_record_in_no_known_state_is_unreadable(queue: JobQueue, valkey: Redis, field: str, value: str) -> None:
    await submit(queue, 1)
    await valkey.hset(PREFIX + "job:" + numbered(1).id, field, value)
    with pytest.raises(UnreadableJobError):
        await queue.read("default", numbered(1).id)


async def test_an_unreadable_job_can_be_canceled_and_blocks_no_lane(queue: JobQueue, valkey: Redis) -> None:
    await submit(queue, 1, 2)
    await spoil_field(valkey, 1, "spec", newer)
    assert (await queue.stats()).lanes[LANE].queued == 2
    await queue.cancel("default", numbered(1).id)
    assert (await claim_one(queue)).job == numbered(2)


@SPOILERS
async def test_stats_leave_out_the_worker_they_cannot_read(queue: JobQueue, valkey: Redis, spoil: Spoil) -> None:
    other = WORKER.model_copy(update={"id": "worker-2"})
    for info in (WORKER, other):
        await queue.heartbeat(info, forget_after_s=6)
    key = PREFIX + "worker:worker-1"
    await valkey.set(key, spoil(str(await valkey.get(key))), keepttl=True)
    await submit(queue, 1)
    stats = await queue.stats()
    assert stats.workers == (other,)
    assert stats.lanes[LANE].queued == 1
