"""What the tests of the queue share: things to hand in, the server's keys at a glance, and the passing of time."""

import asyncio
import dataclasses
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.asyncio import Redis

from app.jobs.keys import PREFIX
from app.jobs.queue import Claim, JobQueue
from app.jobs.schema import (
    ErrorCode,
    ImageFile,
    ImageJob,
    JobError,
    JobResult,
    Progress,
    Stage,
    StageSeconds,
    WorkerInfo,
)
from tests.conftest import make_job

LANE = "tiny-sd3"
OTHER_LANE = "tiny-flux-dev"
MOMENTS = ("submitted_ms", "kept_until_ms", "last_ms", "promised_ms", "late_ms")
PROGRESS = Progress(stage=Stage.DENOISE, step=2, total_steps=4)
RETRYABLE = JobError(code=ErrorCode.OUT_OF_MEMORY, message="no room", retryable=True)
FINAL = JobError(code=ErrorCode.INVALID_OUTPUT, message="not a number", retryable=False)
RESULT = JobResult(
    images=(
        ImageFile(
            index=0,
            path="results/a/b/0.png",
            content_type="image/png",
            width=128,
            height=128,
            seed=42,
            steps=4,
            size_bytes=3,
            sha256="0" * 64,
        ),
    ),
    seconds=StageSeconds(text_encode=0.1, denoise=0.2, vae_decode=0.3, image_encode=0.4, store=0.5),
    denoise_steps=4,
    largest_batch=2,
    model_revision="bundled",
    worker="worker-1",
    worker_version="0.1.0",
)
WORKER = WorkerInfo(id="worker-1", version="0.1.0", models=(LANE,), device="cpu", jobs_in_progress=0)


def numbered(number: int, **changes: object) -> ImageJob:
    return make_job(**({"id": f"img_{number:032x}"} | changes))


async def submit(queue: JobQueue, *numbers: int, **changes: object) -> list[ImageJob]:
    jobs = [numbered(number, **changes) for number in numbers]
    for job in jobs:
        await queue.submit(job)
    return jobs


async def claim_one(queue: JobQueue, name: str = "token-1", worker: str = "worker-1") -> Claim:
    [claim] = await queue.claim(worker, name, [LANE], 1)
    return claim


def somebody_elses(claim: Claim, token: str) -> Claim:
    """The claim of whoever took the job with this token."""
    return dataclasses.replace(claim, token=token)


def fences(claims: Sequence[Claim]) -> list[tuple[ImageJob, str]]:
    """Claims without what changes when they are asked for again."""
    return [(claim.job, claim.token) for claim in claims]


def ids(things: Sequence[Claim | ImageJob]) -> list[str]:
    return [thing.job.id if isinstance(thing, Claim) else thing.id for thing in things]


async def keyspace(client: Redis) -> dict[str, Any]:
    """Every key without its prefix, and without what only tells when something was said again or last.

    Of leases only who has one: their ends move with each renewal.
    """
    names = sorted(str(name) for name in await client.keys("*"))
    pipeline = client.pipeline(transaction=False)
    for name in names:
        pipeline.type(name)
    types = await pipeline.execute()
    for name, kind in zip(names, types, strict=True):
        match kind:
            case "hash":
                pipeline.hgetall(name)
            case "zset":
                pipeline.zrange(name, 0, -1, withscores=True)
            case "set":
                pipeline.smembers(name)
            case "list":
                pipeline.lrange(name, 0, -1)
            case _:
                pipeline.get(name)
    values = dict(zip((name.removeprefix(PREFIX) for name in names), await pipeline.execute(), strict=True))
    for (name, value), kind in zip(values.items(), types, strict=True):
        if kind == "hash":
            value.pop("asked_ms", None)
        if kind == "zset":
            values[name] = dict(value) if name != "lease" else {member for member, _ in value}
    return values


def without_times(keys: dict[str, Any]) -> Any:
    """The same, comparable between two runs."""

    def timeless(name: str, value: Any) -> Any:
        if name in ("delayed", "cancel_after", "dead", "ended", "expired"):
            return set(value)
        if name.startswith(("job:", "lane:", "tenant:", "round:")):
            kept = ("work_ms", "cost_ms")
            return {
                field: text
                for field, text in value.items()
                if field in kept or not (field.endswith("_ms") or field.startswith("pace"))
            }
        return value

    kept = {name: timeless(name, value) for name, value in keys.items() if name not in ("ticked", "pardon", "format")}
    return json.loads(json.dumps(kept, default=sorted, sort_keys=True))


async def pass_time(client: Redis, seconds: float, *, ticked: bool = True) -> None:
    """Make everything older that the server's clock decides about: it cannot itself be set.

    ticked: somebody did so all the while; else it looks as if the queue was away.
    """
    past_ms = round(seconds * 1000)
    names = [name for kind in ("job", "lane", "tenant") for name in await client.keys(f"{PREFIX}{kind}:*")]
    pipeline = client.pipeline(transaction=False)
    for name in names:
        pipeline.hmget(name, *MOMENTS, "finished_ms")
    for name, (*moments, finished_ms) in zip(names, await pipeline.execute(), strict=True):
        for field, moment in zip(MOMENTS, moments, strict=True):
            if moment is not None and finished_ms is None:
                pipeline.hset(name, field, str(int(float(moment)) - past_ms))
    await pipeline.execute()
    for taking_turns in await client.keys(PREFIX + "round:*"):
        for turn in await client.hkeys(taking_turns):
            await client.hincrby(taking_turns, str(turn), -past_ms)
    lines = [str(name).removeprefix(PREFIX) for name in await client.keys(PREFIX + "promised:*")]
    for times in ("lease", "delayed", "cancel_after", "ended", "expired", *lines):
        for member in await client.zrange(PREFIX + times, 0, -1):
            await client.zincrby(PREFIX + times, -past_ms, str(member))
    for name in await client.keys(PREFIX + "claim:*") + await client.keys(PREFIX + "worker:*"):
        await client.pexpire(name, max(0, await client.pttl(name) - past_ms))
    for name in ("pardon",) if ticked else ("pardon", "ticked"):
        if (moment := await client.get(PREFIX + name)) is not None:
            await client.set(PREFIX + name, int(moment) - past_ms)
    if ticked and await client.exists(PREFIX + "ticked"):
        seconds_now, microseconds = await client.time()
        await client.set(PREFIX + "ticked", seconds_now * 1000 + microseconds // 1000)


async def until(true: Callable[[], Awaitable[bool]], within_s: float = 10) -> None:
    give_up_s = time.monotonic() + within_s
    while not await true():
        assert time.monotonic() < give_up_s, "it never came"
        await asyncio.sleep(0.01)
