"""Records of jobs that somebody waits for: the gateway listens once for all who wait, and reads once for all of them.

A message only says that a record changed; the record is the truth. It is read when its job's name comes by, and in
turns however quiet it is: a message that was missed costs a second, or where very many jobs are waited for, a second
for each 200 of them. What changes while a read is under way is read together by the next one: however busy the queue
is, this takes one connection and one read at a time.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import NoReturn

import structlog

from app.jobs.errors import QueueError, QueueUnavailableError
from app.jobs.queue import JobQueue
from app.jobs.schema import JobRecord

log = structlog.get_logger()

READ_EVERY_S = 1.0
_LISTEN_AGAIN_AFTER_S = 1.0
_SILENCE_S = 15.0
_READ_IN_TURN = 200  # each second: a thousand quiet jobs should not be felt by whoever else asks
_READ_AT_ONCE = 50  # so that a script holds up the queue's server for a few milliseconds at most

_Key = tuple[str, str]  # tenant, job id


class Waiter:
    """One who waits for a job: gets the newest record, and is woken when it is another than the last."""

    def __init__(self) -> None:
        self._newest: JobRecord | QueueError | None = None
        self._woken = asyncio.Event()

    async def next(self, timeout_s: float) -> JobRecord | None:
        """Give the record once it is another than the last one given; None when the time is up before.

        Raises what the queue said instead of a record: JobNotFoundError, UnreadableJobError, QueueUnavailableError.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._woken.wait()
        except TimeoutError:
            return None
        self._woken.clear()
        if isinstance(self._newest, QueueError):
            raise self._newest
        return self._newest

    def tell(self, news: JobRecord | QueueError) -> None:
        if news is not self._newest:
            self._newest = news
            self._woken.set()


class Changes:
    """Wakes those who wait for a job when its record has changed."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._waiting: dict[str, dict[str, list[Waiter]]] = {}  # job id -> tenant -> who waits
        self._known: dict[_Key, JobRecord | QueueError] = {}
        self._changed: set[str] = set()
        self._any_changed = asyncio.Event()

    @property
    def waiters(self) -> int:
        """How many wait now."""
        return sum(len(waiters) for of_job in self._waiting.values() for waiters in of_job.values())

    @contextmanager
    def watch(self, tenant: str, job_id: str) -> Iterator[Waiter]:
        """Wait for a job within this block; the first record comes as soon as it is read."""
        waiter = Waiter()
        of_job = self._waiting.setdefault(job_id, {})
        of_job.setdefault(tenant, []).append(waiter)
        self._note(job_id)
        try:
            yield waiter
        finally:
            of_job[tenant].remove(waiter)
            if not of_job[tenant]:
                del of_job[tenant]
                self._known.pop((tenant, job_id), None)
            if not of_job:
                del self._waiting[job_id]
                self._changed.discard(job_id)

    async def run(self) -> None:
        """Listen and read until it is canceled."""
        await asyncio.gather(self._listen(), self._read_changed())

    def _note(self, job_id: str) -> None:
        if job_id in self._waiting:
            self._changed.add(job_id)
            self._any_changed.set()

    def _next_in_turn(self) -> list[str]:
        """Give the jobs whose turn it is: those that waited longest for one."""
        job_ids = list(islice(self._waiting, _READ_IN_TURN))
        for job_id in job_ids:
            self._waiting[job_id] = self._waiting.pop(job_id)
        return job_ids

    async def _listen(self) -> NoReturn:
        while True:
            try:
                async with self._queue.changes() as job_ids:
                    self._changed.update(self._waiting)  # of what was said before, nothing was heard
                    self._any_changed.set()
                    while True:
                        self._note(await asyncio.wait_for(anext(job_ids), _SILENCE_S))
            except TimeoutError:
                continue  # a line that died in silence says nothing either: listen on a new one
            except QueueUnavailableError as error:
                log.warning("not_listening", error=str(error))
                await asyncio.sleep(_LISTEN_AGAIN_AFTER_S)
            except Exception:
                log.exception("listening_failed")
                await asyncio.sleep(_LISTEN_AGAIN_AFTER_S)

    async def _read_changed(self) -> NoReturn:
        clock = asyncio.get_running_loop().time
        due_s = clock() + READ_EVERY_S
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due_s):
                    await self._any_changed.wait()
            if clock() >= due_s:
                self._changed.update(self._next_in_turn())
                due_s = clock() + READ_EVERY_S
            self._any_changed.clear()
            job_ids, self._changed = self._changed, set()
            by_tenant: dict[str, list[str]] = {}
            for job_id in job_ids:
                for tenant in self._waiting[job_id]:
                    by_tenant.setdefault(tenant, []).append(job_id)
            for tenant, of_tenant in by_tenant.items():
                for start in range(0, len(of_tenant), _READ_AT_ONCE):
                    await self._read(tenant, of_tenant[start : start + _READ_AT_ONCE])

    async def _read(self, tenant: str, job_ids: Sequence[str]) -> None:
        # Whoever comes while this is under way must not be told what was read before they came.
        asking = [(job_id, tuple(self._waiting.get(job_id, {}).get(tenant, ()))) for job_id in job_ids]
        news: Sequence[JobRecord | QueueError]
        try:
            news = await self._queue.read_many(tenant, job_ids)
        except QueueError as error:
            news = [error] * len(job_ids)
        except Exception:
            # Whatever it was, it goes on: all who wait would wait for ever.
            log.exception("changes_not_read")
            return
        for (job_id, waiters), new in zip(asking, news, strict=True):
            key = tenant, job_id
            if new == (last := self._known.get(key)):
                new = last
            if self._waiting.get(job_id, {}).get(tenant):
                self._known[key] = new
            for waiter in waiters:
                waiter.tell(new)
