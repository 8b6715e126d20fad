"""What a tenant may ask for in a minute and an hour, on a real server, without waiting for either."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from app.access.key import Role
from app.access.key_store import KeyStore
from app.api.quotas import wait_s
from app.jobs.schema import Priority
from tests.app.access.keys import make_key
from tests.app.gateway import Gateway, check_error, running

Fields = dict[str, Any]
REQUEST: Fields = {"prompt": "a ring", "model": "tiny-sd3", "width": 512, "height": 512, "num_inference_steps": 4}
COST = 512 * 512 * 4  # 1.05 megapixel-steps


class Lab:
    def __init__(self, gateway: Gateway, valkey: Redis) -> None:
        self.gateway = gateway
        self.valkey = valkey

    async def key(self, tenant: str, **changes: object) -> str:
        return (await make_key(KeyStore(self.valkey), tenant, Role.READ, Role.SUBMIT, **changes))[1]

    async def ask(self, key: str, name: str | None = None, **fields: object) -> httpx.Response:
        """name: the request's Idempotency-Key."""
        headers = {"authorization": f"Bearer {key}"} | ({} if name is None else {"Idempotency-Key": name})
        return await self.gateway.client.post("/v1/images", json=REQUEST | fields, headers=headers)

    async def statuses(self, key: str, times: int) -> list[int]:
        return [(await self.ask(key)).status_code for _ in range(times)]

    async def let_pass(self, seconds: float) -> None:
        """Make every counter as old as if so much time had passed."""
        for name in await self.valkey.keys("*:limit:*"):
            left_ms = await self.valkey.pttl(name) - round(seconds * 1000)
            await (self.valkey.pexpire(name, left_ms) if left_ms > 0 else self.valkey.delete(name))


Labs = Callable[..., AbstractAsyncContextManager[Lab]]


@pytest.fixture
def labs(no_darkroom_environment: None, valkey: Redis, valkey_url: str) -> Labs:
    @asynccontextmanager
    async def lab(**settings: Any) -> AsyncIterator[Lab]:
        async with running(valkey_url, require_keys=True, **settings) as gateway:
            yield Lab(gateway, valkey)

    return lab


async def limited(answer: httpx.Response) -> int:
    body = check_error(answer)
    assert (answer.status_code, body["code"]) == (429, "rate_limited")
    return int(answer.headers["retry-after"])


async def test_requests_a_minute_are_a_tenants_own(labs: Labs) -> None:
    async with labs(requests_per_minute=3) as lab:
        alice, bob = await lab.key("alice"), await lab.key("bob")
        assert await lab.statuses(alice, 5) == [202, 202, 202, 429, 429]
        assert await lab.statuses(await lab.key("alice"), 1) == [429]  # by another key of hers
        assert await lab.statuses(bob, 4) == [202, 202, 202, 429]
        metrics = (await lab.gateway.client.get("/metrics", headers=await _admin(lab))).text
        assert 'darkroom_rate_limited_total{reason="requests"} 4.0' in metrics
        assert "alice" not in metrics


async def test_reading_is_free(labs: Labs) -> None:
    async with labs(requests_per_minute=1) as lab:
        headers = {"authorization": f"Bearer {await lab.key('alice')}"}
        for _ in range(10):
            assert (await lab.gateway.client.get("/v1/images", headers=headers)).status_code == 200


@pytest.mark.parametrize("gap_s", [0, 10, 59, 61, 75, 119])
@pytest.mark.parametrize("settings", [{"requests_per_minute": 4}, {"megapixel_steps_per_hour": 5}], ids=str)
async def test_retry_after_is_true(labs: Labs, settings: dict[str, int], gap_s: int) -> None:
    scale = 1 if "requests_per_minute" in settings else 60
    async with labs(**settings) as lab:
        key = await lab.key("alice")
        assert await lab.statuses(key, 2) == [202, 202]
        await lab.let_pass(gap_s * scale)
        while (answer := await lab.ask(key)).status_code == 202:
            pass
        wait_s = await limited(answer)
        await lab.let_pass(wait_s - 2)
        assert (await lab.ask(key)).status_code == 429
        await lab.let_pass(2)
        assert (await lab.ask(key)).status_code == 202


async def test_an_hours_budget_counts_pixels_steps_and_images(labs: Labs) -> None:
    async with labs(megapixel_steps_per_hour=5) as lab:
        key = await lab.key("alice")
        assert (await lab.ask(key, n=3)).status_code == 202
        await limited(await lab.ask(key, n=2))
        await limited(await lab.ask(key, num_inference_steps=8))
        assert (await lab.ask(key)).status_code == 202  # what was refused was not counted


async def test_one_request_may_not_take_too_much(labs: Labs) -> None:
    async with labs(max_request_megapixel_steps=3, megapixel_steps_per_hour=100) as lab:
        key, small = await lab.key("alice"), await lab.key("bob", megapixel_steps_per_hour=1)
        for answer in (await lab.ask(key, n=3), await lab.ask(small)):
            body = check_error(answer)
            assert (answer.status_code, body["code"]) == (422, "over_budget")
        assert "3.146 megapixel-steps; one request may take 3" in check_error(await lab.ask(key, n=3))["detail"]
        assert (await lab.ask(key, n=2)).status_code == 202


async def test_a_keys_own_limits_stand_before_the_servers(labs: Labs) -> None:
    async with labs(requests_per_minute=2) as lab:
        assert await lab.statuses(await lab.key("alice", requests_per_minute=3), 4) == [202, 202, 202, 429]
        assert await lab.statuses(await lab.key("bob", requests_per_minute=1), 2) == [202, 429]
    async with labs() as lab:
        assert await lab.statuses(await lab.key("carol"), 5) == [202] * 5


async def test_keys_with_different_limits_share_their_tenants_count(labs: Labs) -> None:
    async with labs() as lab:
        few, more = await lab.key("alice", requests_per_minute=2), await lab.key("alice", requests_per_minute=3)
        assert await lab.statuses(few, 3) == [202, 202, 429]
        assert await lab.statuses(more, 2) == [202, 429]


async def test_a_priority_above_the_keys_own_is_refused_and_not_lowered(labs: Labs) -> None:
    async with labs() as lab:
        key = await lab.key("alice", max_priority=Priority.NORMAL)
        answer = await lab.ask(key, priority="high")
        assert (answer.status_code, check_error(answer)["code"]) == (403, "forbidden")
        assert check_error(answer)["param"] == "priority"
        assert "normal at most" in check_error(answer)["detail"]
        assert (await lab.ask(key, priority="normal")).status_code == 202


async def test_what_the_budget_refuses_uses_up_no_request(labs: Labs) -> None:
    async with labs(requests_per_minute=2, megapixel_steps_per_hour=5) as lab:
        key = await lab.key("alice")
        assert (await lab.ask(key, n=3)).status_code == 202
        for _ in range(3):
            assert "megapixel-steps an hour" in check_error(await lab.ask(key, n=2))["detail"]
        assert (await lab.ask(key)).status_code == 202
        assert "requests a minute" in check_error(await lab.ask(key))["detail"]


async def test_a_replay_is_free_and_never_too_much(labs: Labs) -> None:
    async with labs(requests_per_minute=2, megapixel_steps_per_hour=3) as lab:
        key = await lab.key("alice")
        first = await lab.ask(key, "one")
        for _ in range(3):
            assert (await lab.ask(key, "one")).json()["id"] == first.json()["id"]
        assert (await lab.ask(key, "one", seed=1)).status_code == 422
        assert (await lab.ask(key, "two")).status_code == 202
        await limited(await lab.ask(key, "three"))
        again = await lab.ask(key, "one")
        assert (again.status_code, again.headers["idempotency-replayed"]) == (202, "true")


async def test_of_the_same_request_twice_at_once_one_is_charged(labs: Labs) -> None:
    async with labs(requests_per_minute=10) as lab:
        key = await lab.key("alice")
        answers = await asyncio.gather(*(lab.ask(key, "one") for _ in range(5)))
        assert len({answer.json()["id"] for answer in answers}) == 1
        assert await lab.statuses(key, 10) == [202] * 9 + [429]


async def test_what_the_queue_refuses_is_not_charged(labs: Labs) -> None:
    async with labs(requests_per_minute=3, megapixel_steps_per_hour=5, max_queued=1) as lab:
        key = await lab.key("alice")
        assert (await lab.ask(key)).status_code == 202
        for _ in range(4):
            assert check_error(await lab.ask(key))["code"] == "queue_full"
        await lab.gateway.claim()
        assert (await lab.ask(key)).status_code == 202
        await lab.gateway.claim()
        assert await lab.statuses(key, 1) == [202]
        await lab.gateway.claim()
        await limited(await lab.ask(key))


async def test_a_bad_request_counts_for_nothing(labs: Labs) -> None:
    async with labs(requests_per_minute=1) as lab:
        key = await lab.key("alice")
        assert (await lab.ask(key, seed=-1)).status_code == 422
        assert (await lab.ask(key)).status_code == 202


@pytest.mark.parametrize(
    ("window", "limit", "cost", "expected"),
    [
        ((0, 0.0, 0, 0.0), 10, 1, 0.0),
        ((10, 60.0, 0, 120.0), 10, 1, 0.0),  # room 9: nine fit as soon as the clock moves
        ((10, 60.0, 5, 120.0), 10, 1, 30.0),  # five of the ten before must have faded
        ((0, 0.0, 10, 120.0), 10, 1, 60.0),  # this window must end, and one of its ten fade
        ((0, 0.0, 10, 120.0), 10, 10, 114.0),
        ((0, 0.0, 10, 70.0), 10, 5, 10 + 24.0),
    ],
)
def test_how_long_to_wait(window: tuple[int, float, int, float], limit: int, cost: int, expected: float) -> None:
    assert wait_s(*window, window_s=60, limit=limit, cost=cost) == pytest.approx(expected)


async def _admin(lab: Lab) -> dict[str, str]:
    _, key = await make_key(KeyStore(lab.valkey), "operations", Role.ADMIN)
    return {"authorization": f"Bearer {key}"}
