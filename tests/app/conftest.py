"""Fixtures of the gateway's tests."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.app.gateway import Gateway, running


@pytest.fixture
def no_darkroom_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have set DARKROOM_ variables for their own server."""
    for name in [name for name in os.environ if name.upper().startswith("DARKROOM_")]:
        monkeypatch.delenv(name)


@pytest.fixture
async def gateway(
    no_darkroom_environment: None, valkey: Redis, valkey_url: str, tmp_path: Path
) -> AsyncIterator[Gateway]:
    """A gateway with an empty queue and an empty folder of images."""
    async with running(valkey_url, f"file://{tmp_path}/images") as gateway:
        yield gateway
