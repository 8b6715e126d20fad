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
    """Every key without its prefix. Of leases only who has one: their ends move with each renewal."""
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
        if kind == "zset":
            values[name] = dict(value) if name != "lease" else {member for member, _ in value}
    return values


def without_times(keys: dict[str, Any]) -> Any:
    """The same, comparable between two runs."""

    def timeless(name: str, value: Any) -> Any:
        if name in ("delayed", "dead"):
            return set(value)
        if name.startswith("job:"):
            return {field: text for field, text in value.items() if not field.endswith("_ms")}
        return value

    return json.loads(
        json.dumps({name: timeless(name, value) for name, value in keys.items()}, default=sorted, sort_keys=True)
    )


async def pass_time(client: Redis, seconds: float) -> None:
    """Make open jobs older, and bring forward everything that the server's clock will end: it cannot itself be set."""
    for name in await client.keys(PREFIX + "job:*"):
        if not await client.hexists(name, "finished_ms"):
            await client.hincrby(name, "submitted_ms", -round(seconds * 1000))
    for waits in (PREFIX + "lease", PREFIX + "delayed"):
        for member in await client.zrange(waits, 0, -1):
            await client.zincrby(waits, -seconds * 1000, str(member))
    for name in await client.keys(PREFIX + "claim:*") + await client.keys(PREFIX + "worker:*"):
        await client.pexpire(name, max(0, await client.pttl(name) - round(seconds * 1000)))


async def until(true: Callable[[], Awaitable[bool]], within_s: float = 10) -> None:
    give_up_s = time.monotonic() + within_s
    while not await true():
        assert time.monotonic() < give_up_s, "it never came"
        await asyncio.sleep(0.01)
