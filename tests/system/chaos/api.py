"""Darkroom's HTTP API, as a client sees it whose server comes and goes."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from http import HTTPStatus
from types import TracebackType
from typing import Self

import httpx
from pydantic import BaseModel

from app.api.views import Status

# Longer than a gateway tries to reach its queue: after a timeout nothing more happens to a request.
TIMEOUT_S = 20.0
_ASK_AGAIN_S = 1.0
_KNOCK_EVERY_S = 0.1
_PAGE = 100
_CONNECTIONS = 32
ENDED = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELED})


class RefusedError(Exception):
    """What was asked was not done, and will not be."""


class NobodyListensError(Exception):
    """It was not even sent."""


class LostReplyError(Exception):
    """What was asked may have been done."""


class SeenImage(BaseModel):
    index: int
    seed: int
    sha256: str


class SeenError(BaseModel):
    code: str


class SeenJob(BaseModel):
    """What is read of a job."""

    id: str
    status: Status
    created_at: datetime
    completed_at: datetime | None
    data: list[SeenImage]
    metadata: dict[str, str]
    error: SeenError | None


class SeenPage(BaseModel):
    data: list[SeenJob]
    next_after: str | None


class Api:
    """While nobody listens, one task knocks and all others wait for it: what is to be loaded is not this process."""

    def __init__(self, url: str) -> None:
        limits = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)
        self._listens = asyncio.Event()
        self._listens.set()
        self._knocking: asyncio.Task[None] | None = None
        self._http = httpx.AsyncClient(base_url=url, limits=limits, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._knocking is not None:
            self._knocking.cancel()
        await self._http.aclose()

    async def submit(self, body: Mapping[str, object], key: str, *, timeout_s: float = TIMEOUT_S) -> SeenJob:
        """timeout_s: for the reply, once all is sent. Raises RefusedError, NobodyListensError or LostReplyError."""
        headers = {"Idempotency-Key": key}
        answer = await self._send("POST", "/v1/images", json=body, headers=headers, timeout_s=timeout_s)
        if answer.status_code != HTTPStatus.ACCEPTED:
            raise RefusedError(f"{answer.status_code}: {answer.text}")
        return SeenJob.model_validate_json(answer.content)

    async def cancel(self, job_id: str) -> SeenJob:
        """Raises NobodyListensError or LostReplyError."""
        answer = await self._send("POST", f"/v1/images/{job_id}/cancel")
        return SeenJob.model_validate_json(answer.raise_for_status().content)

    async def read(self, job_id: str) -> SeenJob:
        return SeenJob.model_validate_json((await self._get(f"/v1/images/{job_id}")).content)

    async def content(self, job_id: str, index: int) -> bytes:
        return (await self._get(f"/v1/images/{job_id}/content?index={index}")).content

    async def heeds_keys(self) -> bool:
        """Whether it documents the header Idempotency-Key."""
        return "idempotency-key" in (await self._get("/openapi.json")).text.lower()

    async def metrics(self) -> str:
        return (await self._get("/metrics")).text

    async def jobs(self) -> AsyncIterator[SeenJob]:
        """Every job there is, newest first."""
        after: str | None = ""
        while after is not None:
            answer = await self._get(f"/v1/images?limit={_PAGE}&after={after}")
            page = SeenPage.model_validate_json(answer.content)
            for job in page.data:
                yield job
            after = page.next_after

    async def _get(self, path: str) -> httpx.Response:
        """Ask until there is an answer. Raises httpx.HTTPStatusError for one that no waiting makes better."""
        while True:
            try:
                answer = await self._send("GET", path)
            except NobodyListensError:
                continue
            except LostReplyError:
                await asyncio.sleep(_ASK_AGAIN_S)
            else:
                return answer.raise_for_status()

    async def _send(
        self,
        method: str,
        path: str,
        *,
        json: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> httpx.Response:
        await self._listens.wait()
        timeout = httpx.Timeout(TIMEOUT_S, read=timeout_s, pool=None)
        try:
            answer = await self._http.request(method, path, json=json, headers=headers, timeout=timeout)
        except httpx.ConnectError as error:
            if self._listens.is_set():
                self._listens.clear()
                self._knocking = asyncio.create_task(self._knock())
            raise NobodyListensError from error
        except httpx.TransportError as error:
            raise LostReplyError(repr(error)) from error
        if answer.is_server_error:
            raise LostReplyError(f"{answer.status_code}: {answer.text}")
        return answer

    async def _knock(self) -> None:
        while not self._listens.is_set():
            try:
                await self._http.get("/livez")
            except httpx.TransportError:
                await asyncio.sleep(_KNOCK_EVERY_S)
            else:
                self._listens.set()
