"""A worker that stands still for longer than its lease: another one has its job, and only that one's picture shows."""

import asyncio
import signal
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.processes import wait_until
from tests.system.processes import gateway, worker

pytestmark = pytest.mark.system

STEPS = 100


@pytest.mark.timeout(400)
async def test_a_frozen_worker_is_fenced_when_it_wakes(tmp_path: Path, valkey: Redis, valkey_url: str) -> None:
    store_url = (tmp_path / "images").as_uri()
    with (
        gateway(tmp_path, valkey_url, store_url) as client,
        worker(tmp_path, valkey_url, store_url, "w1") as first,
        worker(tmp_path, valkey_url, store_url, "w2") as second,
    ):
        job_id = client.submit(num_inference_steps=STEPS, size="128x128")
        assert wait_until(lambda: (client.job(job_id)["progress"] or {}).get("step", 0) > 0, 60), client.job(job_id)
        frozen, other = (first, second) if job_id in first.said() else (second, first)
        frozen.send(signal.SIGSTOP)
        view = client.wait(job_id, "completed", 150)
        assert job_id in other.said()
        picture = client.content(job_id).content
        frozen.send(signal.SIGCONT)
        frozen.wait_for("job_dropped", 30)
        await asyncio.sleep(1)
        assert client.job(job_id) == view
        assert client.content(job_id).content == picture
        for seed in range(4):
            client.wait(client.submit(seed=seed), "completed")
        assert frozen.is_running
