"""Keys as the gateway looks them up: remembered for a few seconds, so that a poll costs no further round trip."""

from collections import OrderedDict
from collections.abc import Callable

from app.access.key import KeyRecord
from app.access.key_store import KeyStore

# The longest that a revoked key still opens anything.
REMEMBER_S = 3.0
MAX_REMEMBERED = 4_096


class KeyCache:
    """Raises what KeyStore raises, whenever it has to ask: who cannot be looked up is let in nowhere.

    Only keys that exist are remembered: nobody can push them out with ids that he makes up.
    """

    def __init__(
        self,
        store: KeyStore,
        clock: Callable[[], float],
        *,
        remember_s: float = REMEMBER_S,
        max_remembered: int = MAX_REMEMBERED,
    ) -> None:
        """clock: seconds, monotonic."""
        self._store = store
        self._clock = clock
        self._remember_s = remember_s
        self._max_remembered = max_remembered
        self._known: OrderedDict[str, tuple[float, KeyRecord]] = OrderedDict()
        self._any_exist = False
        self._none_until_s = float("-inf")

    async def find(self, key_id: str) -> KeyRecord | None:
        now_s = self._clock()
        if key_id in self._known:
            until_s, record = self._known[key_id]
            if now_s < until_s:
                self._known.move_to_end(key_id)
                return record
            del self._known[key_id]
        found = await self._store.find(key_id)
        if found is not None:
            self._known[key_id] = (now_s + self._remember_s, found)
            self._known.move_to_end(key_id)
            while len(self._known) > self._max_remembered:
                self._known.popitem(last=False)
        return found

    async def any_exist(self) -> bool:
        """Whether a key was ever made. Once it was, that stays so."""
        if not self._any_exist and self._clock() >= self._none_until_s:
            self._any_exist = await self._store.any_exist()
            self._none_until_s = self._clock() + self._remember_s
        return self._any_exist
