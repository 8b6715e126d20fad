"""The queue's scripts on a Redis or Valkey server, run again after a lost reply."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Any

from redis import exceptions as redis_errors
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.jobs.errors import QueueError, QueueUnavailableError, StorageFullError
from app.jobs.keys import PREFIX

_RETRY_DELAYS_S = (0.05, 0.2)
_CONNECTIONS = 64
_WAIT_FOR_CONNECTION_S = 10.0


def connect(url: str) -> Redis:
    """Open a lazily connected client for redis://, rediss:// or unix://.

    redis-py's own retries are off: they are silent, and a script's are ours. Three tries at a server that hangs take
    6 s, well within a lease. Whoever finds every connection busy waits for one, where redis-py's usual pool raises.
    Bytes that are no UTF-8 come as lone surrogates, which no message may hold: strict decoding would lose the whole
    reply, not only the job they are in.
    """
    return Redis.from_pool(
        BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=_WAIT_FOR_CONNECTION_S,
            decode_responses=True,
            encoding_errors="surrogateescape",
            retry=Retry(NoBackoff(), 0),
            socket_timeout=2.0,
            socket_connect_timeout=2.0,
        )
    )


class Scripts:
    """The scripts of `lua/`, by the names of their files; all may be asked again."""

    def __init__(self, redis: Redis) -> None:
        folder = resources.files("app.jobs") / "lua"
        prelude = (folder / "prelude.lua").read_text()
        self._scripts = {
            file.name.removesuffix(".lua"): redis.register_script(_with_prelude(file.read_text(), prelude))
            for file in folder.iterdir()
            if file.name.endswith(".lua") and file.name != "prelude.lua"
        }

    async def run(self, name: str, *args: str | int, on: Redis | None = None) -> Any:
        """Run one and return its reply. Raises QueueUnavailableError or StorageFullError.

        on: a client of one connection, where what is asked next must follow there.
        """
        # A connection that died while idle is found out only by its next use.
        for delay_s in _RETRY_DELAYS_S:
            try:
                return await self._run_once(name, args, on)
            except QueueUnavailableError:
                await asyncio.sleep(delay_s)
        return await self._run_once(name, args, on)

    async def _run_once(self, name: str, args: Sequence[str | int], on: Redis | None) -> Any:
        with translated_errors():
            return await self._scripts[name](keys=[PREFIX], args=args, client=on)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn what redis-py raises into a QueueError."""
    try:
        yield
    except redis_errors.OutOfMemoryError as error:
        raise StorageFullError(str(error)) from error
    except (
        redis_errors.ConnectionError,
        redis_errors.TimeoutError,
        redis_errors.ReadOnlyError,
        redis_errors.ClusterDownError,
        OSError,
    ) as error:
        raise QueueUnavailableError(str(error)) from error
    except redis_errors.ResponseError as error:
        # Its disk fails, its replicas are gone or somebody's script hangs: a server that refuses is as good as away.
        if str(error).startswith(("MISCONF", "NOREPLICAS", "BUSY", "WAITAOF")):
            raise QueueUnavailableError(str(error)) from error
        raise QueueError(f"the queue's server refused what it was asked: {error}") from error


def _with_prelude(script: str, prelude: str) -> str:
    # The #! line with the script's flags must stay first.
    shebang, body = script.split("\n", 1)
    return f"{shebang}\n{prelude}{body}"
