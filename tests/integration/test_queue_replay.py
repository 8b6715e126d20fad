"""Each call whose reply is lost on the way back is asked again, unseen by its caller and without a second effect."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from redis.asyncio import Redis

from app.jobs.errors import QueueUnavailableError
from app.jobs.keys import PREFIX
from app.jobs.queue import Claim, Idempotency, JobQueue, Tick
from app.jobs.schema import ImageJob
from app.jobs.scripts import connect
from app.jobs.upkeep import Hold, Holder, Purged, Upkeep
from tests.integration.queue_lab import (
    FINAL,
    LANE,
    PROGRESS,
    RESULT,
    RETRYABLE,
    WORKER,
    claim_one,
    fences,
    ids,
    keyspace,
    numbered,
    pass_time,
    submit,
    without_times,
)


class LossyLine:
    """A line to the server that can carry a script there and hang up instead of carrying its reply back."""

    def __init__(self, server_socket: str) -> None:
        self._server_socket = server_socket
        self.to_pass = 0
        self.to_lose = 0

    async def carry(self, caller: asyncio.StreamReader, to_caller: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_unix_connection(self._server_socket)
        asked = b""

        async def there() -> None:
            nonlocal asked
            while asked := await caller.read(65536):
                to_server.write(asked)

        async def back() -> None:
            while reply := await server.read(65536):
                if self.to_lose > 0 and b"EVALSHA" in asked and not reply.startswith(b"-NOSCRIPT"):
                    if self.to_pass == 0:
                        self.to_lose -= 1
                        return
                    self.to_pass -= 1
                to_caller.write(reply)

        ways = [asyncio.create_task(there()), asyncio.create_task(back())]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for writer in (to_server, to_caller):
            writer.close()


Line = tuple[LossyLine, JobQueue, Redis]


@pytest.fixture
async def line(valkey_url: str) -> AsyncIterator[Line]:
    line = LossyLine(valkey_url.removeprefix("unix://"))
    with TemporaryDirectory(prefix="darkroom-test-") as folder:
        socket = Path(folder) / "line.sock"
        listener = await asyncio.start_unix_server(line.carry, socket)
        client = connect(f"unix://{socket}")
        yield line, JobQueue(client, lease_s=1.0), client
        await client.aclose()
        listener.close()
        await asyncio.sleep(0.01)  # the line's own tasks end


KEY, KNOWN_KEY = Idempotency("order-1", "body"), Idempotency("order-2", "body")
OVER = [numbered(number).id for number in (6, 7, 1)]

Call = Callable[[JobQueue, list[Claim]], Awaitable[Any]]


async def claim_fences(queue: JobQueue) -> list[tuple[ImageJob, str]]:
    return fences(await queue.claim("worker-2", "token-2", [LANE], 1))


# Jobs 1 and 2 are held by these claims, 3 and 4 wait, 6 is over and 7 is dead.
CALLS: dict[str, Call] = {
    "submit": lambda queue, claims: queue.submit(numbered(5)),
    "submit-with-a-key": lambda queue, claims: queue.submit(numbered(5), idempotency=KEY),
    "submit-with-a-known-key": lambda queue, claims: queue.submit(numbered(5), idempotency=KNOWN_KEY),
    "claim": lambda queue, claims: claim_fences(queue),
    "renew": lambda queue, claims: queue.renew(claims),
    "progress": lambda queue, claims: queue.progress([(claim, PROGRESS) for claim in claims]),
    "complete": lambda queue, claims: queue.complete(claims[0], RESULT),
    "fail": lambda queue, claims: queue.fail(claims[0], FINAL),
    "fail-and-retry": lambda queue, claims: queue.fail(claims[0], RETRYABLE),
    "release": lambda queue, claims: queue.release(claims),
    "cancel-queued": lambda queue, claims: queue.cancel("default", numbered(3).id),
    "cancel-running": lambda queue, claims: queue.cancel("default", numbered(1).id),
    "heartbeat": lambda queue, claims: queue.heartbeat(WORKER, forget_after_s=60),
}
UPKEEP_CALLS: dict[str, Callable[[Upkeep], Awaitable[Any]]] = {
    "weigh": lambda upkeep: upkeep.weigh("default", 3),
    "holders": lambda upkeep: upkeep.holders([numbered(number).id for number in (1, 3, 6, 7, 8)]),
    "dead": lambda upkeep: upkeep.dead(),
}


async def play(call: Call, direct: JobQueue, caller: JobQueue, valkey: Redis) -> tuple[Any, Any]:
    """What the call answers, and what it leaves behind."""
    await valkey.flushall()
    claims = await set_out(direct, valkey)
    return await call(caller, claims), without_times(await keyspace(valkey))


async def set_out(direct: JobQueue, valkey: Redis) -> list[Claim]:
    await direct.tick()
    await submit(direct, 7)
    await JobQueue(valkey, lease_s=1, max_crashes=1).claim("worker-7", "token-7", [LANE], 1)
    await pass_time(valkey, 2)
    assert (await JobQueue(valkey, max_crashes=1).tick()).dead == 1
    await direct.submit(numbered(6), idempotency=KNOWN_KEY)
    await direct.cancel("default", numbered(6).id)
    await submit(direct, 1, 2, 3, 4)
    return await JobQueue(valkey, lease_s=60).claim("worker-1", "token-1", [LANE], 2)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
async def test_a_lost_reply_changes_nothing(
    queue: JobQueue, valkey: Redis, line: Line, call: Call
) -> None:
    lossy, caller, _ = line
    expected = await play(call, queue, caller, valkey)
    lossy.to_lose = 1
    assert await play(call, queue, caller, valkey) == expected
    assert lossy.to_lose == 0


@pytest.mark.parametrize("call", UPKEEP_CALLS.values(), ids=UPKEEP_CALLS.keys())
async def test_a_lost_reply_changes_nothing_for_upkeep(
    queue: JobQueue, valkey: Redis, line: Line, call: Callable[[Upkeep], Awaitable[Any]]
) -> None:
    lossy, _, client = line
    expected = await play(lambda queue, claims: call(Upkeep(valkey)), queue, queue, valkey)
    lossy.to_lose = 1
    assert await play(lambda queue, claims: call(Upkeep(client)), queue, queue, valkey) == expected
    assert lossy.to_lose == 0


async def test_a_revival_asked_again_revives_nobody_twice(queue: JobQueue, valkey: Redis, line: Line) -> None:
    lossy, _, client = line
    expected = await play(lambda queue, claims: Upkeep(valkey).revive([numbered(7).id]), queue, queue, valkey)
    lossy.to_lose = 1
    again = await play(lambda queue, claims: Upkeep(client).revive([numbered(7).id]), queue, queue, valkey)
    assert (expected[0], again[0]) == (1, 0)  # the count went with the reply
    assert again[1] == expected[1]


async def test_a_purge_asked_again_finds_nothing_left(queue: JobQueue, valkey: Redis, line: Line) -> None:
    lossy, _, client = line
    expected = await play(lambda queue, claims: Upkeep(valkey).purge("default", OVER), queue, queue, valkey)
    lossy.to_lose = 1
    again = await play(lambda queue, claims: Upkeep(client).purge("default", OVER), queue, queue, valkey)
    assert expected[0] == [Purged.OK, Purged.OK, Purged.OPEN]
    assert again[0] == [Purged.MISSING, Purged.MISSING, Purged.OPEN]
    assert again[1] == expected[1]


async def test_an_expiry_whose_reply_is_lost_leaves_the_bytes_to_the_holders(
    queue: JobQueue, valkey: Redis, line: Line
) -> None:
    lossy, _, client = line
    await set_out(queue, valkey)
    await pass_time(valkey, 100)
    lossy.to_lose = 1
    assert await Upkeep(client).expire(pictures_s=50, record_s=1000) == []
    assert lossy.to_lose == 0
    assert await Upkeep(client).holders([numbered(6).id]) == [Holder(Hold.ENDED, "", expired=True)]


async def test_a_tick_asked_again_moves_nothing_twice(
    queue: JobQueue, valkey: Redis, line: Line
) -> None:
    lossy, caller, _ = line
    await submit(queue, 1, 2)
    await queue.fail(await claim_one(queue, "token-1"), RETRYABLE)
    await claim_one(queue, "token-2")
    await pass_time(valkey, 2)
    lossy.to_lose = 1
    assert await caller.tick() == Tick(requeued=0, dead=0, canceled=0, retried=0)  # its counts went with the reply
    assert lossy.to_lose == 0
    crashes = [(await queue.read("default", numbered(number).id)).crashes for number in (1, 2)]
    assert crashes == [0, 1]
    assert (await queue.stats()).lanes[LANE].queued == 2


async def test_a_reply_lost_three_times_is_an_error(valkey: Redis, line: Line) -> None:
    lossy, caller, _ = line
    await submit(caller, 1)
    lossy.to_lose = 3
    with pytest.raises(QueueUnavailableError):
        await submit(caller, 2)
    assert lossy.to_lose == 0
    await submit(caller, 2)  # which the server has known since the first time
    assert (await caller.stats()).lanes[LANE].queued == 2


async def test_a_claim_that_cannot_end_its_unreadable_job_still_returns_the_others(
    queue: JobQueue, valkey: Redis, line: Line
) -> None:
    lossy, caller, _ = line
    await submit(queue, 1, 2)
    await valkey.hset(PREFIX + "job:" + numbered(1).id, "spec", "{}")
    lossy.to_pass, lossy.to_lose = 1, 3  # the claim's own reply arrives
    assert ids(await caller.claim("worker-1", "token-1", [LANE], 2)) == [numbered(2).id]
    assert (lossy.to_pass, lossy.to_lose) == (0, 0)


async def test_a_call_given_up_midway_leaves_no_reply_for_the_next_one(queue: JobQueue, valkey: Redis) -> None:
    await submit(queue, *range(20))
    for number in range(20):
        claiming = asyncio.create_task(queue.claim("worker-1", f"token-{number}", [LANE], 1))
        for _ in range(number % 5):
            await asyncio.sleep(0)
        claiming.cancel()
        await asyncio.gather(claiming, return_exceptions=True)
        assert (await queue.read("default", numbered(number).id)).job == numbered(number)
