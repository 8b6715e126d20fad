"""How a key is shown, when one is asked for, and what is said when the keys cannot be looked up."""

import base64
from collections.abc import AsyncIterator

import httpx
import pytest
from redis.asyncio import Redis

from app.access.key import Role
from app.access.key_store import KeyStore
from tests.app.access.keys import make_key
from tests.app.gateway import Gateway, check_error, running
from tests.integration.servers import serving

LIST = "/v1/images"


@pytest.fixture
def store(valkey: Redis) -> KeyStore:
    return KeyStore(valkey)


@pytest.fixture
async def closed(no_darkroom_environment: None, valkey: Redis, valkey_url: str) -> AsyncIterator[Gateway]:
    async with running(valkey_url, require_keys=True) as gateway:
        yield gateway


async def ask(gateway: Gateway, authorization: str | bytes | None) -> httpx.Response:
    headers = {} if authorization is None else {b"authorization": _bytes(authorization)}
    return await gateway.client.get(LIST, headers=httpx.Headers(headers))


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


async def test_bearer_and_the_password_of_basic(closed: Gateway, store: KeyStore) -> None:
    _, key = await make_key(store, "alice", Role.READ)
    for shown in (f"Bearer {key}", f"bearer {key}", f"BEARER  {key} ", basic("anyone", key), basic("", key)):
        assert (await ask(closed, shown)).status_code == 200, shown


async def test_nothing_else_is_a_key(closed: Gateway, store: KeyStore) -> None:
    _, key = await make_key(store, "alice", Role.READ)
    key_id, _, secret = key.partition(".")
    wrong: list[str | bytes | None] = [
        None,
        "",
        "Bearer",
        "Bearer ",
        key,
        f"Token {key}",
        f"Bearer {key}x",
        f"Bearer {key[:-1]}",
        f"Bearer {key.upper()}",
        f"Bearer {key_id}",
        f"Bearer {key_id}.",
        f"Bearer {secret}",
        f"Bearer dk_{'0' * 16}.{secret}",
        f"Bearer {key_id}.{'A' * 43}",
        f"Bearer {key} {key}",
        basic(key, ""),
        "Basic " + key,
        "Basic !!!!",
        "Basic " + base64.b64encode(b"\xff\xfe:\xff").decode(),
        b"Bearer \xff\xfe",
        "Bearer dk_*.*",
        "Bearer " + "a" * 5_000,
    ]
    for shown in wrong:
        response = await ask(closed, shown)
        assert response.status_code == 401, shown
        body = check_error(response)
        assert body["code"] == "unauthorized"
        assert key_id[3:] not in response.text
        assert response.headers["www-authenticate"].startswith('Bearer realm="darkroom"')


async def test_a_key_is_not_read_from_the_address(closed: Gateway, store: KeyStore) -> None:
    _, key = await make_key(store, "alice", Role.READ)
    for name in ("key", "api_key", "authorization", "access_token"):
        assert (await closed.client.get(LIST, params={name: key})).status_code == 401


async def test_who_may_not_is_told_before_the_body_is_read(closed: Gateway) -> None:
    headers = {"content-type": "application/json"}
    response = await closed.client.post(LIST, content=b"[" * 100_000, headers=headers)
    assert (response.status_code, check_error(response)["code"]) == (401, "unauthorized")


async def test_an_open_server_takes_any_word_but_a_wrong_key(gateway: Gateway) -> None:
    for shown in (None, "Bearer sk-whatever", "Bearer none", basic("user", "password")):
        assert (await ask(gateway, shown)).status_code == 200
    assert (await ask(gateway, f"Bearer dk_{'0' * 16}.{'A' * 43}")).status_code == 401
    assert (await gateway.client.get("/metrics")).status_code == 200


async def test_the_first_key_closes_an_open_server_for_good(
    no_darkroom_environment: None, store: KeyStore, valkey_url: str
) -> None:
    async with running(valkey_url) as gateway:
        assert (await ask(gateway, None)).status_code == 200
    record, key = await make_key(store, "alice", Role.READ)
    async with running(valkey_url) as gateway:
        assert (await ask(gateway, None)).status_code == 401
        assert (await ask(gateway, "Bearer sk-whatever")).status_code == 401
        assert (await ask(gateway, f"Bearer {key}")).status_code == 200
    await store.revoke(record.id)
    async with running(valkey_url) as gateway:
        assert (await ask(gateway, None)).status_code == 401
        assert (await ask(gateway, f"Bearer {key}")).status_code == 401


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])  # noqa: S104
async def test_the_scrape_is_an_admins_once_a_key_was_made(
    no_darkroom_environment: None, store: KeyStore, valkey_url: str, host: str
) -> None:
    _, reader = await make_key(store, "alice", Role.READ)
    _, admin = await make_key(store, "operations", Role.ADMIN)
    async with running(valkey_url, host=host, allow_open_network=True) as gateway:
        for key, status in ((None, 401), (reader, 403), (admin, 200)):
            headers = {} if key is None else {"authorization": f"Bearer {key}"}
            assert (await gateway.client.get("/metrics", headers=headers)).status_code == status


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])  # noqa: S104
async def test_beyond_loopback_a_key_is_asked_for_from_the_start(
    no_darkroom_environment: None, valkey: Redis, valkey_url: str, host: str
) -> None:
    async with running(valkey_url, host=host) as gateway:
        assert (await ask(gateway, None)).status_code == (200 if host == "127.0.0.1" else 401)
        assert (await gateway.client.get("/livez")).status_code == 200


async def test_a_poll_costs_no_round_trip_for_its_key(closed: Gateway, store: KeyStore, valkey: Redis) -> None:
    _, key = await make_key(store, "alice", Role.READ)
    await ask(closed, f"Bearer {key}")
    before = int((await valkey.info("commandstats"))["cmdstat_hgetall"]["calls"])
    for _ in range(10):
        assert (await ask(closed, f"Bearer {key}")).status_code == 200
    assert int((await valkey.info("commandstats"))["cmdstat_hgetall"]["calls"]) == before


async def test_when_keys_cannot_be_looked_up_nobody_is_let_in(no_darkroom_environment: None) -> None:
    with serving() as server:
        async with running(server.url) as gateway:
            assert (await ask(gateway, None)).status_code == 200
            server.kill()
            for path in ("/v1/models", LIST):
                headers = {"authorization": f"Bearer dk_{'0' * 16}.{'A' * 43}"}
                response = await gateway.client.get(path, headers=headers)
                assert (response.status_code, check_error(response)["code"]) == (503, "queue_unavailable")
        async with running(server.url) as gateway:
            for path in ("/v1/models", LIST, "/nothing"):
                response = await gateway.client.get(path)
                assert (response.status_code, check_error(response)["code"]) == (503, "queue_unavailable")
            assert "darkroom_queue_up 0.0" in (await gateway.client.get("/metrics")).text
            assert (await gateway.client.get("/livez")).status_code == 200


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()
