"""A worker that stands still for longer than its lease: another one has its job, and only that one's picture shows."""

import asyncio
import signal
from pathlib import Path

from redis.asyncio import Redis

from tests.processes import wait_until
from tests.system.processes import gateway, worker

STEPS = 100


async def test_a_frozen_worker_is_fenced_when_it_wakes(tmp_path: Path, valkey: Redis, valkey_url: str) -> None:
    store_url = (tmp_path / "images").as_uri()
    with (
        gateway(tmp_path, valkey_url, store_url) as client,
        worker(tmp_path, valkey_url, store_url, "frozen") as frozen,
    ):
        job_id = client.submit(num_inference_steps=STEPS, size="256x256")
        assert wait_until(lambda: (client.job(job_id)["progress"] or {}).get("step", 0) > 0, 20), client.job(job_id)
        frozen.send(signal.SIGSTOP)
        with worker(tmp_path, valkey_url, store_url, "other") as other:
            view = client.wait(job_id, "completed", 60)
            picture = client.content(job_id).content
            other_said = other.said()
            frozen.send(signal.SIGCONT)
            frozen.wait_for("job_dropped", 20)
            await asyncio.sleep(1)
            assert client.job(job_id) == view
            assert client.content(job_id).content == picture
            assert '"worker_id": "other"' in other_said
            assert job_id in other_said
            again = client.submit(seed=7)
            client.wait(again, "completed")
            assert frozen.is_running
