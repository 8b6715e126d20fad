"""A job that kills or hangs whoever draws it, among seven others: they complete, and it ends dead."""

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from app.jobs.queue import JobQueue
from app.jobs.schema import ErrorCode, JobState
from tests.processes import wait_until
from tests.system import fatal_worker
from tests.system.chaos.process import Launch
from tests.system.chaos.process import Process as Supervised
from tests.system.processes import NULL_MODEL, ROOT, Client, clean_environment, gateway

CRASHES = 2

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]  # each death costs the start of a process that loads torch


@contextmanager
def fatal(folder: Path, redis_url: str, store_url: str) -> Iterator[Supervised]:
    """A worker that starts again whatever ends it, as often as it is looked after."""
    tallies = folder / "tallies"
    tallies.mkdir()

    def launch(life: str) -> Launch:
        command = (sys.executable, "-m", "tests.system.fatal_worker", "10", str(tallies))
        return Launch(
            command,
            clean_environment()
            | {
                "DARKROOM_REDIS_URL": redis_url,
                "DARKROOM_STORE_URL": store_url,
                "DARKROOM_WORKER_ID": life,
                "DARKROOM_MODELS": NULL_MODEL,
                "DARKROOM_LEASE_S": "3",
                "DARKROOM_STEP_TIMEOUT_S": "2",
                "DARKROOM_DRAIN_TIMEOUT_S": "1",
                "DARKROOM_CALIBRATION_S": "0",
                "DARKROOM_MAX_CRASHES": str(CRASHES),
                "OMP_NUM_THREADS": "1",
            },
        )

    process = Supervised("fatal", launch, folder, random.Random(0))
    try:
        yield process
    finally:
        process.close()


def looked_after(worker: Supervised, condition: Callable[[], bool]) -> bool:
    def look() -> bool:
        worker.tend()
        return condition()

    return wait_until(look, 300)


def dead(redis_url: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "app.cli.main", "jobs", "dead", *words, "--redis-url", redis_url],
        env=clean_environment() | {"COLUMNS": "200"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def submit_eight(client: Client, poison: str) -> tuple[str, list[str]]:
    """The fatal one comes in the middle. Long enough for all to meet in one batch."""
    prompts = ["a small red ring"] * 8
    prompts[3] = poison
    jobs = [
        client.submit(model=NULL_MODEL, prompt=prompt, seed=seed, num_inference_steps=100)
        for seed, prompt in enumerate(prompts)
    ]
    return jobs[3], jobs[:3] + jobs[4:]


@pytest.mark.parametrize("poison", [fatal_worker.KILLS, fatal_worker.HANGS])
async def test_seven_innocents_complete_and_the_culprit_ends_dead(
    tmp_path: Path, valkey: Redis, valkey_url: str, queue: JobQueue, poison: str
) -> None:
    store_url = (tmp_path / "images").as_uri()
    with (
        gateway(tmp_path, valkey_url, store_url, DARKROOM_MAX_CRASHES=str(CRASHES)) as client,
        fatal(tmp_path, valkey_url, store_url) as worker,
    ):
        culprit, innocents = submit_eight(client, poison)

        def over() -> bool:
            return {client.job(job_id)["status"] for job_id in [culprit, *innocents]} == {"completed", "failed"}

        assert looked_after(worker, over), (worker.unexpected, [client.job(job_id) for job_id in innocents])
        assert len(worker.unexpected) == CRASHES, "it struck once in company, and then alone"
        for job_id in innocents:
            record = await queue.read("default", job_id)
            assert (record.state, record.crashes) == (JobState.COMPLETED, 1)
        record = await queue.read("default", culprit)
        assert (record.state, record.crashes) == (JobState.DEAD, CRASHES)
        assert client.job(culprit)["error"]["code"] == ErrorCode.WORKER_LOST

        listed = dead(valkey_url, "list")
        assert culprit in listed
        assert poison in listed
        assert not any(job_id in listed for job_id in innocents)
        if poison == fatal_worker.HANGS:
            return
        assert dead(valkey_url, "retry", culprit) == "1 job back in line.\n"
        bystander = client.submit(model=NULL_MODEL, num_inference_steps=4)
        assert looked_after(worker, lambda: client.job(culprit)["status"] == "failed"), worker.unexpected
        assert len(worker.unexpected) == CRASHES + 1, "it had one more life"
        assert dead(valkey_url, "purge", culprit) == "1 job forgotten.\n"
        assert client.get(culprit).status_code == 404
        assert dead(valkey_url, "list") == "There are no dead jobs.\n"
        assert looked_after(worker, lambda: client.job(bystander)["status"] == "completed")
        assert (await queue.read("default", bystander)).crashes == 0, "it waited until the suspect was over"
