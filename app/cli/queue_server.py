"""The queue's server, for commands that look after it: that of a running `darkroom up`, or one they are given."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import TypeAdapter, ValidationError
from redis.asyncio import Redis

from app.cli.errors import RedisError
from app.cli.valkey import socket_url
from app.jobs.environment import RedisUrl
from app.jobs.errors import QueueError
from app.jobs.scripts import connect

T = TypeVar("T")

DATA_DIR = Path("darkroom-data")
DataDirOption = Annotated[
    Path, typer.Option(help="The folder of a running `darkroom up`; not where DARKROOM_REDIS_URL names a server.")
]
RedisUrlOption = Annotated[
    str | None, typer.Option(envvar="DARKROOM_REDIS_URL", help="The queue's server.", show_default=False)
]


def with_server(redis_url: str | None, data_dir: Path, do: Callable[[Redis], Awaitable[T]]) -> T:
    """Do something with a client of the server. Raises RedisError."""
    url = redis_url or socket_url(data_dir.absolute() / "valkey.sock")
    try:
        TypeAdapter(RedisUrl).validate_python(url)
    except ValidationError as error:
        raise RedisError(f"DARKROOM_REDIS_URL: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error

    async def run() -> T:
        async with connect(url) as redis:
            return await do(redis)

    try:
        return asyncio.run(run())
    except QueueError as error:
        where = "DARKROOM_REDIS_URL" if redis_url else f"{data_dir}, where `darkroom up` would be running"
        raise RedisError(f"No answer from the queue's server of {where}: {error}") from error
