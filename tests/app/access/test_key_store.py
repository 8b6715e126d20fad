"""Keys on a real server, and how the gateway remembers them."""

import asyncio

import pytest
from redis.asyncio import Redis

from app.access.errors import KeyNotFoundError, TooManyKeysError, UnreadableKeyError
from app.access.key import Role
from app.access.key_cache import KeyCache
from app.access.key_store import KeyStore
from app.access.url_secret import UrlSecret
from app.api.chosen_models import ChosenModels
from app.jobs.errors import QueueUnavailableError, StorageFullError
from app.jobs.keys import PREFIX
from app.jobs.schema import Priority
from app.jobs.scripts import connect
from tests.app.access.keys import make_key


@pytest.fixture
def store(valkey: Redis) -> KeyStore:
    return KeyStore(valkey)


async def test_a_key_is_kept_and_its_secret_is_not(store: KeyStore, valkey: Redis) -> None:
    record, text = await make_key(
        store,
        "alice",
        Role.READ,
        Role.SUBMIT,
        name="laptop",
        max_priority=Priority.NORMAL,
        requests_per_minute=5,
        megapixel_steps_per_hour=7,
    )
    found = await store.find(record.id)
    assert found is not None
    assert found.model_copy(update={"created_ms": 0}) == record
    assert abs(found.created_ms - int((await valkey.time())[0]) * 1000) < 10_000
    secret = text.partition(".")[2]
    for key in await valkey.keys("*"):
        held = await valkey.dump(key) if await valkey.type(key) == "zset" else str(await valkey.hgetall(key)).encode()
        assert secret.encode() not in (held or b"")


async def test_what_is_kept_beside_the_queue_is_not_named_like_what_the_queue_keeps_of_a_tenant(
    store: KeyStore, valkey: Redis
) -> None:
    await make_key(store, "alice", Role.READ)
    await ChosenModels(valkey).set("alice", "tiny-sd3")
    assert await valkey.exists(f"{PREFIX}keys:alice", f"{PREFIX}sdapi_model:alice") == 2
    assert await valkey.keys(f"{PREFIX}tenant:*") == []


async def test_two_active_keys_a_tenant(store: KeyStore) -> None:
    first, _ = await make_key(store, "alice", Role.READ)
    await make_key(store, "alice", Role.READ)
    with pytest.raises(TooManyKeysError):
        await make_key(store, "alice", Role.READ)
    await make_key(store, "bob", Role.READ)
    await store.revoke(first.id)
    third, _ = await make_key(store, "alice", Role.READ)
    alices = {record.id: record.revoked_ms is None for record in await store.of("alice")}
    assert (len(alices), alices[first.id], alices[third.id]) == (3, False, True)
    assert len(await store.of(None)) == 4
    assert await store.of("nobody") == []


async def test_two_at_once_never_make_three(store: KeyStore) -> None:
    made = await asyncio.gather(*(make_key(store, "alice", Role.READ) for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(outcome, TooManyKeysError) for outcome in made) == 18
    assert len(await store.of("alice")) == 2


async def test_a_key_is_revoked_once_and_for_all(store: KeyStore, valkey: Redis) -> None:
    record, _ = await make_key(store, "alice", Role.READ)
    await store.revoke(record.id)
    once = await store.find(record.id)
    await asyncio.sleep(0.01)
    await store.revoke(record.id)
    assert await store.find(record.id) == once
    before = await valkey.dbsize()
    with pytest.raises(KeyNotFoundError):
        await store.revoke("f" * 16)
    assert await valkey.dbsize() == before


async def test_what_another_version_wrote_is_not_guessed_at(store: KeyStore, valkey: Redis) -> None:
    record, _ = await make_key(store, "alice", Role.READ)
    await valkey.hset(f"{PREFIX}key:{record.id}", "roles", "read,paint")
    with pytest.raises(UnreadableKeyError):
        await store.find(record.id)


async def test_a_lookup_is_remembered_for_a_while(store: KeyStore, valkey: Redis) -> None:
    now_s = 100.0
    cache = KeyCache(store, lambda: now_s, remember_s=3, max_remembered=2)
    record, _ = await make_key(store, "alice", Role.READ)
    asked = await _lookups(valkey)
    assert await cache.find(record.id) == await cache.find(record.id) == await cache.find(record.id)
    assert await _lookups(valkey) == asked + 1
    await store.revoke(record.id)
    now_s = 102.9
    seen = await cache.find(record.id)
    assert seen is not None
    assert seen.revoked_ms is None
    now_s = 103.0
    seen = await cache.find(record.id)
    assert seen is not None
    assert seen.revoked_ms is not None


async def test_memory_is_bounded_and_made_up_ids_push_nobody_out(store: KeyStore, valkey: Redis) -> None:
    cache = KeyCache(store, lambda: 0.0, max_remembered=2)
    records = [(await make_key(store, tenant, Role.READ))[0] for tenant in ("alice", "bob", "carol")]
    await cache.find(records[0].id)
    for number in range(50):
        assert await cache.find(f"{number:016x}") is None
    asked = await _lookups(valkey)
    await cache.find(records[0].id)
    assert await _lookups(valkey) == asked
    for record in records[1:]:
        await cache.find(record.id)
    await cache.find(records[2].id)
    assert await _lookups(valkey) == asked + 2
    await cache.find(records[0].id)  # the one unused for longest had to go
    assert await _lookups(valkey) == asked + 3


async def test_that_a_key_exists_is_never_forgotten(store: KeyStore, valkey: Redis) -> None:
    now_s = 0.0
    cache = KeyCache(store, lambda: now_s, remember_s=3)
    assert not await cache.any_exist()
    record, _ = await make_key(store, "alice", Role.READ)
    assert not await cache.any_exist()
    now_s = 3.0
    assert await cache.any_exist()
    await store.revoke(record.id)
    await valkey.flushall()
    now_s = 100.0
    assert await cache.any_exist()


async def test_a_server_that_is_away_is_no_answer() -> None:
    async with connect("unix:///nowhere/valkey.sock") as redis:
        cache = KeyCache(KeyStore(redis), lambda: 0.0)
        with pytest.raises(QueueUnavailableError):
            await cache.find("0" * 16)
        with pytest.raises(QueueUnavailableError):
            await cache.any_exist()


async def test_a_full_server_still_revokes(store: KeyStore, valkey: Redis) -> None:
    record, _ = await make_key(store, "alice", Role.READ)
    await valkey.config_set("maxmemory", 1)
    try:
        with pytest.raises(StorageFullError):
            await make_key(store, "alice", Role.READ)
        await store.revoke(record.id)
    finally:
        await valkey.config_set("maxmemory", 0)
    assert [found.revoked_ms is not None for found in await store.of("alice")] == [True]


async def test_all_gateways_have_one_url_secret(valkey: Redis) -> None:
    made = await asyncio.gather(*(UrlSecret(valkey, None).get() for _ in range(10)))
    assert len(set(made)) == 1
    assert len(made[0]) == 64
    assert await UrlSecret(valkey, "x" * 32).get() == b"x" * 32


async def _lookups(valkey: Redis) -> int:
    stats = await valkey.info("commandstats")
    return int(stats.get("cmdstat_hgetall", {}).get("calls", 0))
