"""A worker that is asked to end while jobs flow: it hands back what it holds, and the other one goes on with it."""

import logging
import signal
from datetime import datetime
from pathlib import Path

import pytest
from redis.asyncio import Redis

from app.jobs.queue import JobQueue
from app.jobs.schema import JobRecord
from tests.processes import wait_until
from tests.system.processes import NULL_MODEL, Client, Process, gateway, null_worker, worker

log = logging.getLogger(__name__)

GRACE_S = 30.0  # a Kubernetes pod's, by default
CLAIMED_WITHIN_S = 1.0
_ENOUGH = 4
DRAIN = {"DARKROOM_DRAIN_TIMEOUT_S": "6", "DARKROOM_LEASE_S": "15"}

pytestmark = pytest.mark.timeout(600)  # processes that load torch, on a machine that may be busy


def ids(process: Process, event: str) -> list[str]:
    return [line["job_id"] for line in process.events(event)]


def drained(process: Process) -> set[str]:
    """Wait until a worker that was asked to end has ended, and give the ids of what it handed back."""
    assert process.wait(GRACE_S) == 0
    return held(process)


def held(process: Process) -> set[str]:
    return set(ids(process, "job_started")) - set(ids(process, "job_finished"))


def seconds_until_claimed(left: Process, other: Process, job_id: str) -> float:
    [stopped] = left.events("worker_stopped")
    [started] = [line for line in other.events("job_started") if line["job_id"] == job_id]
    return (datetime.fromisoformat(started["timestamp"]) - datetime.fromisoformat(stopped["timestamp"])).total_seconds()


async def records(queue: JobQueue, job_ids: list[str]) -> list[JobRecord]:
    return [await queue.read("default", job_id) for job_id in job_ids]


def submit(client: Client, seed: int) -> str:
    """A job that takes a null worker a second, in whatever company."""
    return client.submit(model=NULL_MODEL, seed=seed, num_inference_steps=100)


async def test_a_worker_that_leaves_under_load_loses_nothing(tmp_path: Path, queue: JobQueue, valkey_url: str) -> None:
    store_url = (tmp_path / "images").as_uri()
    with (
        gateway(tmp_path, valkey_url, store_url) as client,
        null_worker(tmp_path, valkey_url, store_url, "w1", **DRAIN) as leaving,
        null_worker(tmp_path, valkey_url, store_url, "w2", DARKROOM_MAX_IMAGES="200", **DRAIN) as staying,
    ):
        jobs = [submit(client, 0)]
        while len(held(leaving)) < _ENOUGH:
            jobs.append(submit(client, len(jobs)))
        leaving.send(signal.SIGTERM)
        jobs += [submit(client, len(jobs) + number) for number in range(20)]
        handed_back = drained(leaving)
        for job_id in jobs:
            client.wait(job_id, "completed")
        assert {line["released"] for line in leaving.events("worker_stopped")} == {len(handed_back)}
        assert handed_back, "it held nothing: nothing was tried"
        assert handed_back <= set(ids(staying, "job_started"))
        delays_s = [seconds_until_claimed(leaving, staying, job_id) for job_id in handed_back]
        log.info("%d handed back; claimed %.3f s later at most", len(handed_back), max(delays_s))
        assert max(delays_s) < CLAIMED_WITHIN_S
    for record in await records(queue, jobs):
        assert (record.attempts, record.crashes) == (1, 0)
    ended = [*leaving.events("job_finished"), *staying.events("job_finished")]
    assert sorted(line["job_id"] for line in ended) == sorted(jobs), "each is drawn to its end once"
    assert {line["status"] for line in ended} == {"completed"}


async def test_a_half_developed_picture_is_finished_elsewhere_to_the_same_bytes(
    tmp_path: Path, queue: JobQueue, valkey: Redis, valkey_url: str
) -> None:
    store_url = (tmp_path / "images").as_uri()
    # One image at a time: in company the last bit of a real picture may differ.
    alone = {"DARKROOM_MAX_IMAGES": "1", "DARKROOM_CHECKPOINT_EVERY_S": "0.5", **DRAIN}
    with (
        gateway(tmp_path, valkey_url, store_url) as client,
        worker(tmp_path, valkey_url, store_url, "w1", **alone) as first,
        worker(tmp_path, valkey_url, store_url, "w2", **alone) as second,
    ):
        jobs = [client.submit(num_inference_steps=100, size="256x256", seed=seed) for seed in range(3)]
        assert wait_until(lambda: (client.job(jobs[0])["progress"]).get("step", 0) > 2, 60), client.job(jobs[0])
        leaving, staying = (first, second) if jobs[0] in first.said() else (second, first)
        leaving.send(signal.SIGTERM)
        handed_back = drained(leaving)
        assert handed_back == {jobs[0]}
        for job_id in jobs:
            client.wait(job_id, "completed", 120)
        assert jobs[0] in ids(staying, "job_resumed")
        undisturbed = client.submit(num_inference_steps=100, size="256x256", seed=0)
        client.wait(undisturbed, "completed", 120)
        assert client.content(jobs[0]).content == client.content(undisturbed).content
    for record in await records(queue, jobs):
        assert (record.attempts, record.crashes) == (1, 0)
        assert record.result is not None
        assert record.result.redone_steps == 0
