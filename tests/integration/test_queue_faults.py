"""Whatever befalls a call or its reply on the way, its caller does not see it and it has no second effect.

Every call that JobQueue offers is tried on a real server behind a line that drops, repeats and holds what it carries.
"""

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from redis.asyncio import Redis

from app.jobs.errors import QueueUnavailableError
from app.jobs.keys import PREFIX
from app.jobs.queue import JobQueue
from app.jobs.scripts import connect
from tests.integration.queue_calls import CALLS, Call, methods
from tests.integration.queue_lab import LANE, RESULT, keyspace, submit, without_times
from tests.system.proxy import Fault, Proxy, proxied

FAULTS = [Fault.DROPPED, Fault.TWICE, Fault.SLOW, Fault.OVERTAKEN]
# A caller gives up after `_TIMEOUT_S`, asks again 0.05 s later, and is answered at once; what is late comes after that.
_TIMEOUT_S, _LATE_S = 0.15, 0.4
# These ask once: what they lose is told, and whoever calls them comes back by himself.
_ASK_ONCE = ("ping", "wakes", "changes")
CASES = [(name, fault) for name in CALLS for fault in FAULTS if name not in _ASK_ONCE]


@pytest.fixture
async def line(valkey_url: str) -> AsyncIterator[tuple[Proxy, JobQueue]]:
    async with proxied(valkey_url) as proxy:
        client = connect(proxy.url)
        client.connection_pool.connection_kwargs["socket_timeout"] = _TIMEOUT_S
        yield proxy, JobQueue(client, lease_s=30.0)
        await client.aclose()


def test_every_call_of_the_queue_is_tried() -> None:
    assert {name.partition(":")[0] for name in CALLS} == methods()


async def play(call: Call, direct: JobQueue, caller: JobQueue, valkey: Redis) -> tuple[Any, Any]:
    """What the call answers, and what it leaves behind."""
    await valkey.flushall()
    await submit(direct, 5, 6)
    late = await direct.claim("worker-3", "token-3", [LANE], 2)
    await submit(direct, 1, 2, 3, 4)
    claims = await direct.claim("worker-1", "token-1", [LANE], 2)
    await valkey.zadd(PREFIX + "lease", {claim.job.id: 0 for claim in late})
    answer = await call(caller, claims)
    # Life goes on, before what is late arrives.
    for claim in await direct.claim("worker-4", "token-4", [LANE], 9):
        await direct.complete(claim, RESULT)
    await submit(direct, 8)
    return answer, without_times(await keyspace(valkey))


@pytest.mark.parametrize(("name", "fault"), CASES)
async def test_no_call_has_a_second_effect(
    queue: JobQueue, valkey: Redis, line: tuple[Proxy, JobQueue], name: str, fault: Fault
) -> None:
    proxy, caller = line
    expected = await play(CALLS[name], queue, caller, valkey)
    proxy.arm(fault, late_s=_LATE_S)
    assert await play(CALLS[name], queue, caller, valkey) == expected
    assert proxy.armed == 0, "nothing befell it"
    await proxy.settled()
    assert without_times(await keyspace(valkey)) == expected[1], "what came late had an effect"


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", _ASK_ONCE)
async def test_a_call_that_asks_once_says_so_and_works_again(
    queue: JobQueue, valkey: Redis, line: tuple[Proxy, JobQueue], name: str, fault: Fault
) -> None:
    proxy, caller = line
    expected = await play(CALLS[name], queue, caller, valkey)
    proxy.arm(fault, late_s=_LATE_S)
    with suppress(QueueUnavailableError, TimeoutError):  # a message missed is a listener's own to make up for
        assert await play(CALLS[name], queue, caller, valkey) == expected
    assert proxy.armed == 0, "nothing befell it"
    await proxy.settled()
    assert await play(CALLS[name], queue, caller, valkey) == expected
