"""Clients who come back when they were told to, in a crowd of a fixed size or in a stream that nobody waits for."""

import asyncio
import random
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field
from http import HTTPStatus

import httpx

from tests.system.processes import NULL_MODEL

_BODY = {"model": NULL_MODEL, "prompt": "a small red ring", "width": 64, "height": 64}
_ENDED = {"completed", "failed", "canceled"}
_LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Wait:
    """From a client's first refusal until its acceptance: what its Retry-After said, and what it took."""

    told_s: float
    took_s: float


@dataclass(slots=True)
class Crowd:
    """steps: of each job. until_s: when all is over, on the monotonic clock; nobody comes back later."""

    http: httpx.AsyncClient
    steps: int
    until_s: float
    accepted: int = 0
    refused: int = 0
    gone: int = 0
    waits: list[Wait] = field(default_factory=list)
    other_answers: Counter[str] = field(default_factory=Counter)

    async def closed_loop(self, clients: int) -> None:
        """Each submits a job when its last one is over."""
        await asyncio.gather(*(self._regular() for _ in range(clients)))

    async def open_loop(self, per_s: float, rng: random.Random) -> None:
        """New clients with one job each, as they come."""
        due_s = time.monotonic()
        async with asyncio.TaskGroup() as clients:
            while (due_s := due_s + rng.expovariate(per_s)) < self.until_s:
                await asyncio.sleep(due_s - time.monotonic())
                clients.create_task(self._submit())

    async def _regular(self) -> None:
        while time.monotonic() < self.until_s:
            job_id = await self._submit()
            if job_id is None:
                return
            while time.monotonic() < self.until_s:
                await asyncio.sleep(_LOOK_EVERY_S)
                if (await self.http.get(f"/v1/images/{job_id}")).json().get("status") in _ENDED:
                    break

    async def _submit(self) -> str | None:
        """Ask until there is a place, and give the job's id; None: it would be too late."""
        told_s = refused_at_s = None
        body, headers = {**_BODY, "num_inference_steps": self.steps}, {"Idempotency-Key": secrets.token_hex(16)}
        while True:
            answer = await self.http.post("/v1/images", json=body, headers=headers)
            now_s = time.monotonic()
            if answer.status_code == HTTPStatus.ACCEPTED:
                self.accepted += 1
                if told_s is not None and refused_at_s is not None:
                    self.waits.append(Wait(told_s, now_s - refused_at_s))
                return str(answer.json()["id"])
            if answer.status_code != HTTPStatus.TOO_MANY_REQUESTS:
                self.other_answers[f"{answer.status_code}: {answer.text[:200]}"] += 1
                return None
            self.refused += 1
            retry_after_s = float(answer.headers["retry-after"])
            if told_s is None:
                told_s, refused_at_s = retry_after_s, now_s
            if now_s + retry_after_s > self.until_s:
                self.gone += 1
                return None
            await asyncio.sleep(retry_after_s)
