"""What can be done to a process, and when it was done."""

from dataclasses import dataclass
from enum import StrEnum


class Trouble(StrEnum):
    KILL_NULL = "kill null worker"
    KILL_REAL = "kill real worker"
    KILL_GATEWAY = "kill gateway"
    KILL_VALKEY = "kill Valkey"
    LOSE_VALKEY = "kill Valkey, away for longer than a lease"
    FREEZE_NULL = "freeze null worker"
    FREEZE_DEAF = "freeze null worker while Valkey is away"
    FREEZE_REAL = "freeze real worker"
    DRAIN_NULL = "drain null worker"
    DRAIN_REAL = "drain real worker"


KILLS = (Trouble.KILL_NULL, Trouble.KILL_REAL, Trouble.KILL_GATEWAY, Trouble.KILL_VALKEY, Trouble.LOSE_VALKEY)
FREEZES = (Trouble.FREEZE_NULL, Trouble.FREEZE_DEAF, Trouble.FREEZE_REAL)
DRAINS = (Trouble.DRAIN_NULL, Trouble.DRAIN_REAL)

# Dealt until none is left, then anew: so that even a short run sees each of them.
DECK = (
    *[Trouble.KILL_NULL] * 5,
    *[Trouble.FREEZE_NULL] * 2,
    Trouble.FREEZE_DEAF,
    *[Trouble.DRAIN_NULL] * 2,
    *[Trouble.KILL_GATEWAY] * 2,
    Trouble.KILL_VALKEY,
    Trouble.LOSE_VALKEY,
    Trouble.KILL_REAL,
    Trouble.FREEZE_REAL,
    Trouble.DRAIN_REAL,
)


@dataclass(frozen=True, slots=True)
class Happened:
    """at_s: time.time(). life: of the process it was done to."""

    at_s: float
    trouble: Trouble
    life: str
