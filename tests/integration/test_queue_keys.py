"""The table of keys in app/jobs/keys.py against the keys that the scripts write."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

import pytest
from redis.asyncio import Redis

from app.jobs import keys
from app.jobs.errors import QueueFullError, TenantFullError
from app.jobs.queue import Idempotency, JobQueue, Verdict
from app.jobs.upkeep import Upkeep
from tests.integration.queue_lab import (
    FINAL,
    LANE,
    PROGRESS,
    RESULT,
    RETRYABLE,
    WORKER,
    claim_one,
    keyspace,
    numbered,
    pass_time,
    submit,
)

EXPIRING = ("one lease", "three heartbeats", "a day, or as the job", "as long as that", "an hour")


@dataclass(frozen=True, slots=True)
class Row:
    key: str
    type: str
    holds: str
    lives: str

    def matches(self, name: str) -> bool:
        return re.fullmatch(re.sub(r"<\w+>", r"[^:]+", self.key.replace("<flow>", r"[123]:<t>")), name) is not None


def table() -> list[Row]:
    rows: list[Row] = []
    for line in (keys.__doc__ or "").splitlines():
        if line.startswith("|") and not line.startswith(("| key", "|--")):
            key, kind, holds, lives = (cell.strip() for cell in line.strip("|").split("|"))
            if key:
                rows.append(Row(key, kind, holds, lives))
            else:
                last = rows.pop()
                rows.append(Row(last.key, last.type, f"{last.holds} {holds}", last.lives))
    return rows


class Witness:
    """Looks at the server's keys again and again: remembers their types, whether they expire, and a job's fields."""

    def __init__(self, valkey: Redis) -> None:
        self._valkey = valkey
        self.seen: dict[str, tuple[str, bool]] = {}
        self.fields: set[str] = set()

    async def look(self) -> None:
        for name in map(str, await self._valkey.keys("*")):
            kind = str(await self._valkey.type(name))
            self.seen[name] = (kind, await self._valkey.pttl(name) > 0)
            if name.startswith(keys.PREFIX + "job:"):
                self.fields |= set(map(str, await self._valkey.hkeys(name)))


async def every_transition(queue: JobQueue, valkey: Redis) -> Witness:
    witness = Witness(valkey)
    await queue.heartbeat(WORKER, forget_after_s=6)
    await submit(queue, 1, 2, 3)
    await queue.submit(numbered(4), cancel_after_s=1000)
    claims = await queue.claim("worker-1", "token-1", [LANE], 3)
    await witness.look()
    await queue.progress([(claims[0], PROGRESS)])
    await witness.look()
    await queue.complete(claims[0], RESULT)
    await queue.fail(claims[1], RETRYABLE)
    await queue.fail(claims[2], FINAL)
    await queue.cancel("default", numbered(4).id)
    await witness.look()
    await pass_time(valkey, 2)
    await queue.tick()
    await witness.look()
    await queue.release([await claim_one(queue, "token-2")])
    await witness.look()
    claim = await claim_one(queue, "token-3")
    await queue.progress([(claim, PROGRESS)])
    await pass_time(valkey, 2)
    await queue.tick()  # it is a suspect now
    await witness.look()
    await queue.claim("worker-1", "token-5", [LANE], 1, idle=False)
    await witness.look()
    await claim_one(queue, "token-6")
    await pass_time(valkey, 2)
    await queue.tick()  # and dead
    upkeep = Upkeep(valkey)
    await upkeep.weigh("default", 2.0)
    assert await upkeep.my_turn("sweep", 1000)
    await queue.submit(numbered(5), idempotency=Idempotency("key", "body"))
    await queue.submit(numbered(5))
    with pytest.raises(QueueFullError):
        await JobQueue(valkey, max_queued=1).submit(numbered(6), idempotency=Idempotency("key-2", "body"))
    with pytest.raises(TenantFullError):
        await JobQueue(valkey, max_open=1).submit(numbered(6), idempotency=Idempotency("key-2", "body"))
    await witness.look()
    assert (await upkeep.expire(pictures_s=1, record_s=1000)).job_ids
    await upkeep.identity()
    await pass_time(valkey, 10, ticked=False)
    await queue.tick()
    await witness.look()
    claim = await claim_one(queue, "token-4")
    await queue.cancel("default", numbered(5).id)
    await witness.look()
    assert await queue.renew([claim]) == [Verdict.CANCEL]
    await witness.look()
    return witness


@pytest.fixture
async def witness(valkey: Redis) -> Witness:
    return await every_transition(JobQueue(valkey, lease_s=1, max_crashes=2), valkey)


async def test_every_key_is_in_the_table_with_its_type_and_life(witness: Witness) -> None:
    rows = table()
    assert len(rows) > 8
    for name, (kind, expires) in witness.seen.items():
        assert name.startswith(keys.PREFIX)
        [row] = [row for row in rows if row.matches(name.removeprefix(keys.PREFIX))]
        assert kind == {"counter": "string"}.get(row.type, row.type), name
        assert expires == (row.lives in EXPIRING), name


async def test_every_row_of_the_table_is_written(witness: Witness) -> None:
    written = [name.removeprefix(keys.PREFIX) for name in witness.seen]
    rows = [row for row in table() if row.type != "channel"]
    assert [row.key for row in rows if not any(row.matches(name) for name in written)] == []
    channels = [keys.PREFIX + row.key for row in table() if row.type == "channel"]
    assert channels == [keys.WAKE_CHANNEL, keys.CHANGED_CHANNEL]


async def test_the_fields_of_a_job_are_the_tables(witness: Witness) -> None:
    [row] = [row for row in table() if row.key == "job:<id>"]
    said = row.holds.replace("and times:", "").replace(";", "").split()
    assert witness.fields == set(said)


async def test_nothing_is_left_of_what_only_lives_while_it_is_needed(witness: Witness, valkey: Redis) -> None:
    await pass_time(valkey, 1000)
    left = {re.sub(r":img_.*", ":<id>", name) for name in await keyspace(valkey)}
    needed = {row.key for row in table() if "while" in row.lives or row.lives == "one lease"}
    assert left.isdisjoint(needed)
    assert {"dead", "job:<id>", "lanes", "seq", "jobs:default", "workers"} <= left


def scripts() -> Iterator[tuple[str, str]]:
    for file in (resources.files("app.jobs") / "lua").iterdir():
        yield file.name, file.read_text()


def test_scripts_name_no_key_that_is_not_in_the_table() -> None:
    words = {row.key.partition("<")[0] for row in table()}
    for file, text in scripts():
        for word in re.findall(r"prefix \.\. '([^']*)'", text):
            assert word in words, f"{file}: {word}"
        assert "darkroom" not in text, file


def test_only_submit_is_refused_when_memory_is_full() -> None:
    flags = {file: text.partition("\n")[0] for file, text in scripts() if file != "prelude.lua"}
    assert (flags.pop("submit.lua"), flags.pop("weigh.lua")) == ("#!lua", "#!lua")
    assert set(flags.values()) == {"#!lua flags=allow-oom", "#!lua flags=no-writes"}
