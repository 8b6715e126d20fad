"""Messages that cannot be read: another version of Darkroom wrote them, or something spoiled them."""

import json
from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from app.jobs.errors import UnreadableJobError
from app.jobs.keys import PREFIX
from app.jobs.queue import JobQueue, Page
from app.jobs.schema import ErrorCode, JobState, Priority
from tests.integration.queue_lab import LANE, RESULT, WORKER, claim_one, fences, ids, keyspace, numbered, submit

Spoil = Callable[[str], str | bytes]
LATER_FIELDS = {"priority", "deadline_s"}


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


SPOILERS = pytest.mark.parametrize("spoil", [newer, older, other_type, not_json, empty, not_utf8])


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
