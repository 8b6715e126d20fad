"""Each call whose reply is lost on the way back is asked again, unseen by its caller and without a second effect."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from redis.asyncio import Redis

from app.jobs.errors import QueueUnavailableError
from app.jobs.keys import PREFIX
from app.jobs.queue import JobQueue, Tick
from app.jobs.scripts import connect
from tests.integration.queue_lab import (
    LANE,
    RETRYABLE,
    claim_one,
    ids,
    numbered,
    pass_time,
    submit,
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


@pytest.fixture
async def line(valkey_url: str) -> AsyncIterator[tuple[LossyLine, JobQueue]]:
    line = LossyLine(valkey_url.removeprefix("unix://"))
    with TemporaryDirectory(prefix="darkroom-test-") as folder:
        socket = Path(folder) / "line.sock"
        listener = await asyncio.start_unix_server(line.carry, socket)
        client = connect(f"unix://{socket}")
        yield line, JobQueue(client, lease_s=1.0)
        await client.aclose()
        listener.close()
        await asyncio.sleep(0.01)  # the line's own tasks end


async def test_a_tick_asked_again_moves_nothing_twice(
    queue: JobQueue, valkey: Redis, line: tuple[LossyLine, JobQueue]
) -> None:
    lossy, caller = line
    await caller.tick()  # the first one looks for what an older version left
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


async def test_a_reply_lost_three_times_is_an_error(valkey: Redis, line: tuple[LossyLine, JobQueue]) -> None:
    lossy, caller = line
    await submit(caller, 1)
    lossy.to_lose = 3
    with pytest.raises(QueueUnavailableError):
        await submit(caller, 2)
    assert lossy.to_lose == 0
    await submit(caller, 2)  # which the server has known since the first time
    assert (await caller.stats()).lanes[LANE].queued == 2


async def test_a_claim_that_cannot_end_its_unreadable_job_still_returns_the_others(
    queue: JobQueue, valkey: Redis, line: tuple[LossyLine, JobQueue]
) -> None:
    lossy, caller = line
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
