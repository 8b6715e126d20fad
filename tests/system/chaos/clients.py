"""Open-loop load: orders go out when they are due, whatever became of those before."""

import asyncio
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from app.api.views import Status
from tests.system.chaos.api import TIMEOUT_S, Api, LostReplyError, NobodyListensError, RefusedError, SeenJob
from tests.system.chaos.ledger import Entry, Ledger
from tests.system.chaos.orders import Order, null_order, real_order

_FIRST_LOOK_S = 0.5
_LOOK_EVERY_S = 1.5
_LOOK_AGAIN_S = (0.5, 15.0)
_LOOKED_AT_AGAIN = 0.3
_ASK_AGAIN_S = 0.5
_CLOCKS_DIFFER = timedelta(seconds=2)


class Clients:
    """Each order is one task, from its submission to a last look at what it became.

    idempotent: whether the gateway heeds Idempotency-Key. Without, an ambiguous submission is not sent again.
    """

    def __init__(self, api: Api, ledger: Ledger, rng: random.Random, *, idempotent: bool) -> None:
        self._api = api
        self._ledger = ledger
        self._rng = rng
        self._idempotent = idempotent
        self._tasks: list[asyncio.Task[None]] = []

    async def load(self, seconds: float, *, null_per_s: float, real_per_s: float) -> None:
        until_s = time.monotonic() + seconds
        await asyncio.gather(self._send(null_order, null_per_s, until_s), self._send(real_order, real_per_s, until_s))

    async def finish(self, patience_s: float) -> None:
        """Wait for the ends of all orders, as long as some come within `patience_s`.

        An order without an end by then is lost, as the ledger's audit will say.
        """
        waiting = set(self._tasks)
        while waiting:
            ended, waiting = await asyncio.wait(waiting, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
            if not ended:
                break
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for task in self._tasks:
            if task not in waiting:
                task.result()

    async def _send(self, make: Callable[[str, random.Random], Order], per_s: float, until_s: float) -> None:
        due_s = time.monotonic()
        while (due_s := due_s + self._rng.expovariate(per_s)) < until_s:
            await asyncio.sleep(due_s - time.monotonic())
            self._tasks.append(asyncio.create_task(self._fill(make(f"order-{len(self._tasks)}", self._rng))))

    async def _fill(self, order: Order) -> None:
        entry = self._ledger.send(order)
        await self._submit(entry)
        if entry.job_id is None:
            return
        if order.cancel_after_s is None:
            await self._watch(entry)
        else:
            await asyncio.gather(self._watch(entry), self._cancel(entry, order.cancel_after_s))
        await self._download(entry)
        if self._rng.random() < _LOOKED_AT_AGAIN:
            await asyncio.sleep(self._rng.uniform(*_LOOK_AGAIN_S))
            self._ledger.saw(entry, await self._api.read(entry.job_id))
            await self._download(entry)

    async def _submit(self, entry: Entry) -> None:
        """Until it is known what became of it."""
        order, patience_s = entry.order, entry.order.patience_s
        sent_at = datetime.now(UTC)
        while entry.job_id is None:
            try:
                entry.job_id = (await self._api.submit(order.body(), order.tag, timeout_s=patience_s or TIMEOUT_S)).id
            except NobodyListensError:
                continue
            except RefusedError as error:
                self._ledger.refused[str(error)] += 1
                return
            except LostReplyError:
                entry.was_ambiguous, patience_s = True, None
                await asyncio.sleep(_ASK_AGAIN_S)
                if self._idempotent:
                    continue  # the key makes all these submissions one
                found = await self._find(order.tag, sent_at - _CLOCKS_DIFFER)
                entry.job_id = found[0].id if found else None
                return

    async def _find(self, tag: str, sent_at: datetime) -> list[SeenJob]:
        """Look for the order's jobs among those that came since it was sent."""
        found = []
        async for job in self._api.jobs():
            if job.created_at < sent_at:
                break
            if job.metadata.get("tag") == tag:
                found.append(job)
        return found

    async def _watch(self, entry: Entry) -> None:
        assert entry.job_id is not None
        await asyncio.sleep(_FIRST_LOOK_S)
        while entry.ended is None:
            self._ledger.saw(entry, await self._api.read(entry.job_id))
            if entry.ended is None:
                await asyncio.sleep(_LOOK_EVERY_S)

    async def _cancel(self, entry: Entry, after_s: float) -> None:
        assert entry.job_id is not None
        await asyncio.sleep(after_s)
        entry.cancel_asked = True
        try:
            job = await self._api.cancel(entry.job_id)
        except (NobodyListensError, LostReplyError):
            return
        # In progress means canceling now: from here on it must never show a picture.
        entry.cancel_confirmed = job.status in (Status.IN_PROGRESS, Status.CANCELED)

    async def _download(self, entry: Entry) -> None:
        assert entry.job_id is not None
        for index in range(len(entry.sha256)):
            self._ledger.saw_bytes(entry, index, await self._api.content(entry.job_id, index))
