"""Whether the image store has room for what is still to be drawn."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from app.jobs.store import ImageStore

_LOOK_EVERY_S = 1.0
_MIB = 1024**2


class StoreRoom:
    """Says when a store on a disk is as good as full. A look is kept for a second."""

    def __init__(self, store: ImageStore, min_free_mib: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._min_free_bytes = min_free_mib * _MIB
        self._clock = clock
        # Of its own: a look neither holds up what else blocks, nor waits for it.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="room")
        self._looking = asyncio.Lock()
        self._looked_at_s = float("-inf")
        self._is_full = False

    async def is_full(self) -> bool:
        """Less than `min_free_mib` are left; never of a cloud, which has no end. Raises StoreError."""
        async with self._looking:
            if self._clock() - self._looked_at_s >= _LOOK_EVERY_S:
                free_bytes = await asyncio.get_running_loop().run_in_executor(self._thread, self._store.free_bytes)
                self._is_full = free_bytes is not None and free_bytes < self._min_free_bytes
                self._looked_at_s = self._clock()
            return self._is_full
