"""What the gateway does beside answering: moves what time moves, forgets what has had its time, sweeps up.

Any number of gateways may run; expiry and sweeping are done by whichever comes first.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

import structlog

from app.jobs.errors import QueueError
from app.jobs.queue import JobQueue
from app.jobs.store import ImageStore, StoreError
from app.jobs.sweep import delete_pictures, sweep
from app.jobs.upkeep import Upkeep
from app.metrics import GatewayMetrics
from app.queue_watch import QueueWatch

log = structlog.get_logger()

_LOOK_EVERY_S = 2.0
_TICK_EVERY_S = 1.0
_EXPIRE_EVERY_S = 60.0
_SWEEP_EVERY_S = 3600.0
_TIDY_EVERY_S = 3600.0
# No picture takes a day to be written, nor are clocks a day apart.
_HALF_WRITTEN_FOR_S = 86_400.0
KEEP_RECORDS_S = 24 * 3600.0


class Housekeeping:
    """keep_pictures_s: after a job's end; None: for ever. Its record stays a day longer, to say that they are gone."""

    def __init__(
        self,
        queue: JobQueue,
        upkeep: Upkeep,
        watch: QueueWatch,
        store: ImageStore,
        metrics: GatewayMetrics,
        keep_pictures_s: float | None,
    ) -> None:
        self._queue = queue
        self._upkeep = upkeep
        self._watch = watch
        self._store = store
        self._metrics = metrics
        self._keep_pictures_s = keep_pictures_s

    async def run(self) -> None:
        """Until it is canceled."""
        await asyncio.gather(
            _every(_LOOK_EVERY_S, self._watch.look),
            _every(_TICK_EVERY_S, self._tick),
            _every(_EXPIRE_EVERY_S, self._expire),
            _every(_SWEEP_EVERY_S, self._sweep),
            _every(_TIDY_EVERY_S, self._tidy),
        )

    async def _tick(self) -> None:
        self._metrics.count(await self._queue.tick())

    async def _expire(self) -> None:
        if self._keep_pictures_s is None or not await self._upkeep.my_turn("expire", _EXPIRE_EVERY_S):
            return
        while True:
            expired = await self._upkeep.expire(pictures_s=self._keep_pictures_s, record_s=KEEP_RECORDS_S)
            for job_id in expired.job_ids:
                await delete_pictures(self._store, job_id)  # what this does not get at, the sweep does
            if not expired.job_ids and not expired.forgotten:
                return
            log.info("expired", pictures_of=len(expired.job_ids), records=expired.forgotten)

    async def _sweep(self) -> None:
        if await self._upkeep.my_turn("sweep", _SWEEP_EVERY_S):
            forget_after_s = None if self._keep_pictures_s is None else self._keep_pictures_s + KEEP_RECORDS_S
            swept = await sweep(self._store, self._upkeep, forget_after_s)
            if swept:
                log.info("swept", files=swept)

    async def _tidy(self) -> None:
        deleted = await self._store.tidy(_HALF_WRITTEN_FOR_S)
        if deleted:
            log.info("half_written_files_deleted", files=deleted)


async def _every(seconds: float, action: Callable[[], Awaitable[None]]) -> NoReturn:
    while True:
        try:
            await action()
        except (QueueError, StoreError) as error:
            log.warning("housekeeping_put_off", what=action.__name__.strip("_"), error=str(error))
        except Exception:
            # Whatever it was, it goes on: if it died, nobody would see, and jobs of dead workers would stay lost.
            log.exception("housekeeping_failed", what=action.__name__.strip("_"))
        await asyncio.sleep(seconds)
