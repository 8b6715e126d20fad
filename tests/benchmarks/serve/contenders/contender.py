"""What the load needs of a server: to be started, to be asked for a picture, and to be gone afterwards."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx

BATCH_HEADER = "X-Batch-Size"
DRAW_PATH = "/draw"


@dataclass(frozen=True, slots=True)
class Picture:
    """received_s: when its last byte was here, on time.monotonic(). batch_size: most requests that shared a forward."""

    png: bytes
    received_s: float
    batch_size: int


class DrawError(Exception):
    """A request that came to nothing."""


class Contender(Protocol):
    """A server that runs while it is entered; its logs go to the folder it is given."""

    @property
    def name(self) -> str: ...

    def running(self, folder: Path) -> AbstractContextManager[str]:
        """Start it and wait until it answers; the value is its URL. Raises ContenderError."""
        ...

    async def draw(self, client: httpx.AsyncClient, body: Mapping[str, object]) -> Picture:
        """Ask for one picture and wait for its bytes. Raises DrawError or httpx.HTTPError."""
        ...


class ContenderError(Exception):
    """A server that cannot be started here, and why."""
