"""A gateway under test, and what must hold of its every answer."""

import functools
import hashlib
import json
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import httpx
from fastapi import FastAPI
from redis.asyncio import Redis

from app.api.deps import Services
from app.errors import TYPE_BASE, ErrorBody
from app.jobs.keys import PREFIX
from app.jobs.queue import Claim, JobQueue
from app.jobs.schema import ErrorCode, ImageFile, ImageJob, JobError, JobResult, StageSeconds
from app.jobs.scripts import connect
from app.jobs.store import result_path
from app.main import create_app
from app.settings import GatewaySettings

ANY_JOB = PREFIX + "seq"
"""The key that is there once any job was accepted."""

ERROR_BODY_KEYS = {"type", "title", "status", "detail", "code", "param", "request_id", "error"}

# What FastAPI, pydantic, redis-py, uvicorn and Python itself would say.
_LEAKS = re.compile(r"Traceback|pydantic|redis|/site-packages|File \"|Errno|Error \d+|\.py\b|NoneType")


@dataclass(frozen=True, slots=True)
class Gateway:
    """The application, a client of it, and the queue as a worker has it."""

    app: FastAPI
    client: httpx.AsyncClient
    worker: JobQueue
    redis: Redis

    @property
    def services(self) -> Services:
        services: Services = self.app.state.services
        return services

    async def post(self, fields: dict[str, Any]) -> httpx.Response:
        """Submit a job. Unlike httpx's own `json`, can say NaN and half of a surrogate pair."""
        return await self.client.post(
            "/v1/images", content=json.dumps(fields), headers={"content-type": "application/json"}
        )

    async def submit(self, **fields: object) -> dict[str, Any]:
        """Submit a good job; give its view."""
        response = await self.post({"prompt": "a ring", "model": "tiny-sd3"} | fields)
        assert response.status_code == 202, response.text
        return view(response)

    async def read(self, job_id: str) -> dict[str, Any]:
        response = await self.client.get(f"/v1/images/{job_id}")
        assert response.status_code == 200, response.text
        return view(response)

    async def list_ids(self, **params: str | int) -> list[str]:
        """Give the ids of one page."""
        response = await self.client.get("/v1/images", params=params)
        assert response.status_code == 200, response.text
        return [job["id"] for job in view(response)["data"]]

    async def claim(self, token: str | None = None) -> Claim:
        """Take the next job of tiny-sd3, as a worker does."""
        [claim] = await self.worker.claim("worker-1", token or secrets.token_hex(8), ["tiny-sd3"], 1)
        return claim

    async def complete(self, claim: Claim, *pictures: bytes) -> JobResult:
        """Store these bytes and hand in a result for all of the job's images; without bytes, nothing is stored."""
        result = drawn(claim.job, claim.token, *pictures)
        for image, picture in zip(result.images, pictures, strict=False):
            await self.services.store.put(image.path, picture)
        await self.worker.complete(claim, result)
        return result

    async def fail(self, claim: Claim) -> None:
        await self.worker.fail(
            claim, JobError(code=ErrorCode.INVALID_OUTPUT, message="The image is all black.", retryable=False)
        )


@asynccontextmanager
async def running(redis_url: str, store_url: str = "memory://", **settings: Any) -> AsyncIterator[Gateway]:
    """Run a gateway in this process. An exception that its handlers miss fails the test with its traceback."""
    app = create_app(GatewaySettings(redis_url=redis_url, store_url=store_url, **settings))
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://gateway", event_hooks={"response": [check_answer]}
    )
    async with app.router.lifespan_context(app), client, connect(redis_url) as worker_redis:
        yield Gateway(app=app, client=client, worker=JobQueue(worker_redis), redis=worker_redis)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def drawn(job: ImageJob, token: str, *pictures: bytes) -> JobResult:
    """What a worker says of a job that it has drawn; where no pictures are given, of empty ones."""
    kept = [*pictures, *[b""] * job.n]
    return JobResult(
        images=tuple(
            ImageFile(
                index=index,
                path=result_path(job.id, token, index, job.output_format),
                content_type=job.output_format.content_type,
                width=job.width,
                height=job.height,
                seed=seed,
                steps=job.num_inference_steps,
                size_bytes=len(kept[index]),
                sha256=sha256(kept[index]),
            )
            for index, seed in enumerate(job.seeds)
        ),
        seconds=StageSeconds(text_encode=0.5, denoise=1.5, vae_decode=0.25, image_encode=0.125, store=0.0625),
        denoise_steps=job.num_inference_steps * job.n,
        largest_batch=3,
        model_revision="revision-1",
        worker="worker-1",
        worker_version="1.2.3",
    )


def view(response: httpx.Response) -> dict[str, Any]:
    """Read a JSON object, and nothing that only Python takes for JSON."""
    body = json.loads(response.text, parse_constant=_refuse_constant)
    assert isinstance(body, dict)
    return body


async def check_answer(response: httpx.Response) -> None:
    """Hold every answer to the rules: an id, a documented status, and the one error body."""
    await response.aread()
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", response.headers["x-request-id"])
    assert response.status_code < 500 or view(response)["code"] != "internal_error", response.text
    if response.status_code >= 400:
        check_error(response)
    documented = documented_statuses(response.request.method, response.request.url.path)
    assert documented is None or response.status_code in documented


def check_error(response: httpx.Response) -> dict[str, Any]:
    """Hold an error to the one body: RFC 9457's members, OpenAI's object, and nothing of the inside."""
    assert response.headers["content-type"] == "application/json"
    if response.request.method == "HEAD":
        return {}
    body = view(response)
    assert set(body) == ERROR_BODY_KEYS
    ErrorBody.model_validate(body, strict=True, extra="forbid")
    assert body["status"] == response.status_code
    assert body["type"] == TYPE_BASE + body["code"]
    assert body["detail"]
    assert body["request_id"] == response.headers["x-request-id"]
    kind = "server_error" if response.status_code >= 500 else "invalid_request_error"
    assert body["error"] == {
        "message": body["detail"],
        "type": kind,
        "param": body["param"],
        "code": body["code"],
    }
    assert not _LEAKS.search(response.text), response.text
    assert len(response.text) < 2_000
    if response.status_code in (429, 503):
        assert int(response.headers["retry-after"]) >= 1
    return body


def documented_statuses(method: str, path: str) -> frozenset[int] | None:
    """Give the statuses that OpenAPI documents by number; None where it knows no such route."""
    for pattern, operations in _document():
        if pattern.fullmatch(path) and method in operations:
            return operations[method]
    return None


@functools.cache
def _document() -> list[tuple[re.Pattern[str], dict[str, frozenset[int]]]]:
    document = create_app(GatewaySettings(store_url="memory://")).openapi()
    return [
        (
            re.compile(re.sub(r"\{\w+\}", "[^/]+", path)),
            {
                method.upper(): frozenset(int(status) for status in operation["responses"] if status != "default")
                for method, operation in operations.items()
            },
        )
        for path, operations in document["paths"].items()
    ]


def _refuse_constant(word: str) -> NoReturn:
    raise AssertionError(f"{word} is not JSON")
