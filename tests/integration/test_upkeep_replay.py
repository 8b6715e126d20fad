"""Upkeep and idempotent submissions whose reply is lost on the way back: asked again without a second effect."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from redis.asyncio import Redis

from app.jobs.queue import Idempotency, JobQueue
from app.jobs.scripts import connect
from app.jobs.upkeep import Expired, Hold, Holder, Purged, Upkeep
from tests.integration.queue_lab import LANE, keyspace, numbered, pass_time, submit, without_times
from tests.integration.test_queue_replay import LossyLine

KEY, KNOWN_KEY = Idempotency("order-1", "body"), Idempotency("order-2", "body")
OVER = [numbered(number).id for number in (6, 7, 1)]

Call = Callable[[Redis], Awaitable[Any]]

# Job 1 is held, 3 and 4 wait, 6 is over and came with the known key, 7 is dead.
CALLS: dict[str, Call] = {
    "submit with a key": lambda client: JobQueue(client).submit(numbered(5), idempotency=KEY),
    "submit with a known key": lambda client: JobQueue(client).submit(numbered(5), idempotency=KNOWN_KEY),
    "weigh": lambda client: Upkeep(client).weigh("default", 3),
    "holders": lambda client: Upkeep(client).holders([numbered(number).id for number in (1, 3, 6, 7, 8)]),
    "dead": lambda client: Upkeep(client).dead(),
}


@pytest.fixture
async def line(valkey_url: str) -> AsyncIterator[tuple[LossyLine, Redis]]:
    line = LossyLine(valkey_url.removeprefix("unix://"))
    with TemporaryDirectory(prefix="darkroom-test-") as folder:
        socket = Path(folder) / "line.sock"
        listener = await asyncio.start_unix_server(line.carry, socket)
        client = connect(f"unix://{socket}")
        yield line, client
        await client.aclose()
        listener.close()
        await asyncio.sleep(0.01)  # the line's own tasks end


async def set_out(valkey: Redis) -> None:
    queue = JobQueue(valkey, lease_s=60, max_crashes=1)
    await queue.tick()
    await submit(queue, 7)
    await queue.claim("dies", "token-7", [LANE], 1)
    await pass_time(valkey, 61)
    assert (await queue.tick()).dead == 1
    await queue.submit(numbered(6), idempotency=KNOWN_KEY)
    await queue.cancel("default", numbered(6).id)
    await submit(queue, 1, 3, 4)
    await queue.claim("worker-1", "token-1", [LANE], 1)


async def play(valkey: Redis, call: Call, client: Redis) -> tuple[Any, Any]:
    """What the call answers, and what it leaves behind."""
    await valkey.flushall()
    await set_out(valkey)
    return await call(client), without_times(await keyspace(valkey))


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
async def test_a_lost_reply_changes_nothing(valkey: Redis, line: tuple[LossyLine, Redis], call: Call) -> None:
    lossy, client = line
    expected = await play(valkey, call, valkey)
    lossy.to_lose = 1
    assert await play(valkey, call, client) == expected
    assert lossy.to_lose == 0


async def test_a_revival_asked_again_revives_nobody_twice(valkey: Redis, line: tuple[LossyLine, Redis]) -> None:
    lossy, client = line
    expected = await play(valkey, lambda client: Upkeep(client).revive([numbered(7).id]), valkey)
    lossy.to_lose = 1
    again = await play(valkey, lambda client: Upkeep(client).revive([numbered(7).id]), client)
    assert (expected[0], again[0]) == (1, 0)  # the count went with the reply
    assert again[1] == expected[1]


async def test_a_purge_asked_again_finds_nothing_left(valkey: Redis, line: tuple[LossyLine, Redis]) -> None:
    lossy, client = line
    expected = await play(valkey, lambda client: Upkeep(client).purge("default", OVER), valkey)
    lossy.to_lose = 1
    again = await play(valkey, lambda client: Upkeep(client).purge("default", OVER), client)
    assert expected[0] == [Purged.OK, Purged.OK, Purged.OPEN]
    assert again[0] == [Purged.MISSING, Purged.MISSING, Purged.OPEN]
    assert again[1] == expected[1]


async def test_an_expiry_whose_reply_is_lost_leaves_the_bytes_to_the_holders(
    valkey: Redis, line: tuple[LossyLine, Redis]
) -> None:
    lossy, client = line
    await set_out(valkey)
    await pass_time(valkey, 100)
    lossy.to_lose = 1
    assert await Upkeep(client).expire(pictures_s=50, record_s=1000) == Expired([], 0)
    assert lossy.to_lose == 0
    assert await Upkeep(client).holders([numbered(6).id]) == [Holder(Hold.ENDED, "", expired=True)]
