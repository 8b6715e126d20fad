"""What the gateway and the queue's server hold, sampled while they are under load."""

import asyncio
import subprocess
from dataclasses import dataclass, field
from statistics import median

from redis.asyncio import Redis

_EVERY_S = 0.5
_MIB = 1024**2


@dataclass(slots=True)
class Memory:
    """MiB: the gateway's resident set, and what Valkey allocated."""

    gateway: list[float] = field(default_factory=list)
    valkey: list[float] = field(default_factory=list)

    async def watch(self, gateway_pid: int, redis: Redis) -> None:
        """Until it is canceled."""
        while True:
            self.gateway.append(await asyncio.to_thread(_resident_mib, gateway_pid))
            self.valkey.append((await redis.info("memory"))["used_memory"] / _MIB)
            await asyncio.sleep(_EVERY_S)


def growth(samples: list[float]) -> float:
    """From the second quarter, when all is warm, to the last; in the samples' own unit."""
    quarter = max(1, len(samples) // 4)
    return median(samples[-quarter:]) - median(samples[quarter : 2 * quarter] or samples)


def _resident_mib(pid: int) -> float:
    said = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True).stdout
    return int(said) / 1024
