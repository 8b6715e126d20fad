"""What both kinds of process read from their environment, and how they say that it is wrong."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator, ValidationError
from redis.asyncio import ConnectionPool


def _names_a_server(url: str) -> str:
    try:
        pool = ConnectionPool.from_url(url)
        pool.connection_class(**pool.connection_kwargs)  # which opens nothing yet
    except (TypeError, ValueError):
        # Said in our own words: the URL may hold a password.
        raise ValueError("write it as redis://HOST:PORT/DB, rediss://HOST:PORT/DB or unix:///PATH") from None
    return url


RedisUrl = Annotated[str, AfterValidator(_names_a_server)]


def wrong_settings(error: ValidationError) -> Iterator[str]:
    """Say which variables are wrong and why, without their values: one may hold a password."""
    for problem in error.errors(include_url=False):
        variable = "".join(f"DARKROOM_{name}: " for name in problem["loc"][:1]).upper()
        yield variable + problem["msg"].removeprefix("Value error, ")
