"""The loop that tells: looks which jobs have ended, sends, tries again later, and gives up at last.

At least once: an attempt whose answer is lost is made again, with the same `webhook-id` and the same body.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Protocol

import structlog
from prometheus_client import Counter

from app.access.webhook_secret import webhook_secret
from app.jobs.errors import JobNotFoundError, QueueError, UnreadableJobError
from app.jobs.schema import TERMINAL_STATES, JobRecord, JobState
from app.webhooks.outbox import Hook, Outbox
from app.webhooks.sender import Outcome, Sender

log = structlog.get_logger()

EVENT_OF = {
    JobState.COMPLETED: "completed",
    JobState.FAILED: "failed",
    JobState.DEAD: "failed",
    JobState.CANCELED: "canceled",
}
# After each failed attempt; after the last, it is given up.
RETRY_AFTER_S = (5.0, 30.0, 120.0, 600.0, 3_600.0, 6 * 3_600.0, 24 * 3_600.0)
_LOOK_AGAIN_S = 2.0
_LEASE_S = 60.0
_MOST_LOOKS = 200
_MOST_MISSES = 15
_MOST_AT_ONCE = 64
_IDLE_S = 0.5


class Records(Protocol):
    """Where jobs are read: JobQueue."""

    async def read(self, tenant: str, job_id: str) -> JobRecord: ...


class Secret(Protocol):
    """Where the server's own secret comes from: UrlSecret."""

    async def get(self) -> bytes: ...


class Courier:
    def __init__(self, outbox: Outbox, sender: Sender, records: Records, secret: Secret, outcomes: Counter) -> None:
        self._outbox = outbox
        self._sender = sender
        self._records = records
        self._secret = secret
        self._outcomes = outcomes

    async def run(self) -> None:
        """Go on until canceled; a queue that is away is waited for."""
        # Apart: receivers that take their time hold up other messages at most, never the looking.
        await asyncio.gather(self._for_ever(self.look), self._for_ever(self.deliver))

    async def _for_ever(self, work: Callable[[], Awaitable[int]]) -> None:
        while True:
            moved = 0
            try:
                moved = await work()
            except QueueError as error:
                log.warning("queue_unavailable", error=str(error))
            except Exception:
                # As with ticking: if this loop died, nobody would see.
                log.exception("courier_failed")
            if not moved:
                await asyncio.sleep(_IDLE_S)

    async def look(self) -> int:
        """See which jobs have ended since; give their number."""
        ended = 0
        for job_id in await self._outbox.take_open(_MOST_LOOKS, again_s=_LOOK_AGAIN_S):
            hook = await self._outbox.read(job_id)
            try:
                record = await self._records.read(hook.tenant, job_id) if hook else None
            except UnreadableJobError:
                continue  # for a gateway of its own version
            except JobNotFoundError:
                record = None
            if record is None:
                # It is about to be queued, was deleted, or never came to be.
                if await self._outbox.miss(job_id) >= _MOST_MISSES:
                    await self._outbox.forget(job_id)
            elif record.state in TERMINAL_STATES:
                await self.on_finished(record)
                ended += 1
        return ended

    async def on_finished(self, record: JobRecord) -> None:
        """A job has ended: tell it, if its author asked for that. Again is fine."""
        hook = await self._outbox.read(record.job.id)
        if hook is None:
            return
        if EVENT_OF[record.state] in hook.events:
            await self._outbox.post(record.job.id, message(hook, record))
        else:
            await self._outbox.forget(record.job.id)

    async def deliver(self) -> int:
        """Send what is due, some at once; give the number of attempts."""
        due = await self._outbox.take_due(_MOST_AT_ONCE, lease_s=_LEASE_S)
        await asyncio.gather(*(self._attempt(job_id) for job_id in due))
        return len(due)

    async def _attempt(self, job_id: str) -> None:
        hook = await self._outbox.read(job_id)
        if hook is None or hook.body is None:
            await self._outbox.forget(job_id)
            return
        secret = webhook_secret(await self._secret.get(), hook.tenant)
        try:
            outcome = await self._sender.send(hook.url, message_id(job_id), hook.body, secret)
        except Exception:
            # Of this message only, and not for ever: uncounted, it would come again each minute without an end.
            log.exception("webhook_attempt_broke", job_id=job_id)
            outcome = Outcome.FAILED
        self._outcomes.labels(outcome).inc()
        if outcome is Outcome.FAILED and hook.attempts < len(RETRY_AFTER_S):
            await self._outbox.try_later(job_id, RETRY_AFTER_S[hook.attempts])
            return
        if outcome is not Outcome.DELIVERED:
            log.warning("webhook_given_up", job_id=job_id, outcome=outcome, attempts=hook.attempts + 1)
        await self._outbox.forget(job_id)


def message(hook: Hook, record: JobRecord) -> str:
    """What is told: that the job ended and how; the rest is read at `url`, with a key."""
    ended = datetime.fromtimestamp((record.finished_ms or 0) / 1000, UTC)
    event = EVENT_OF[record.state]
    error = record.error if event == "failed" else None
    return json.dumps(
        {
            "type": f"image.{event}",
            "timestamp": ended.isoformat().replace("+00:00", "Z"),
            "data": {
                "id": record.job.id,
                "object": "image",
                "status": event,
                "model": record.job.model,
                "error": error.model_dump(mode="json") if error else None,
                "metadata": record.job.metadata,
                "url": hook.self_url,
            },
        }
    )


def message_id(job_id: str) -> str:
    return f"msg_{job_id}"
