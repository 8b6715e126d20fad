"""`darkroom jobs`, as an operator runs it."""

import os
import subprocess
import sys

import pytest
from redis.asyncio import Redis

from app.jobs.queue import JobQueue
from app.jobs.schema import JobState
from tests.integration.queue_lab import claim_one, numbered, pass_time, submit


def jobs(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli.main", "jobs", *arguments],
        env={**os.environ, "DARKROOM_REDIS_URL": url, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
async def dead(valkey: Redis) -> JobQueue:
    """A queue in which job 1 has killed its worker, and job 2 waits."""
    queue = JobQueue(valkey, lease_s=1, max_crashes=1)
    await submit(queue, 1, prompt="a [red] ring")
    await queue.tick()
    await claim_one(queue)
    await pass_time(valkey, 2)
    assert (await queue.tick()).dead == 1
    await submit(queue, 2)
    return queue


async def test_the_dead_are_listed_with_what_may_have_killed_them(dead: JobQueue, valkey_url: str) -> None:
    said = jobs(valkey_url, "dead", "list").stdout
    assert all(word in said for word in (numbered(1).id, "tiny-sd3", "128x128", "a [red] ring"))
    assert numbered(2).id not in said


async def test_a_dead_job_is_tried_again_alone(dead: JobQueue, valkey_url: str) -> None:
    assert jobs(valkey_url, "dead", "retry", numbered(1).id, numbered(2).id).stdout == "1 job back in line.\n"
    claim = await claim_one(dead, "token-2")
    assert (claim.job.id, claim.alone) == (numbered(1).id, True)
    assert jobs(valkey_url, "dead", "list").stdout == "There are no dead jobs.\n"


async def test_the_dead_are_forgotten(dead: JobQueue, valkey: Redis, valkey_url: str) -> None:
    assert jobs(valkey_url, "dead", "purge", numbered(2).id).stdout == "0 jobs forgotten.\n"
    assert jobs(valkey_url, "dead", "purge", "--all").stdout == "1 job forgotten.\n"
    assert (await dead.read("default", numbered(2).id)).state is JobState.QUEUED
    assert (await dead.stats()).dead == 0


@pytest.mark.parametrize("arguments", [("retry",), ("purge",), ("retry", "img_1", "--all")])
async def test_nobody_means_all_by_saying_nothing(dead: JobQueue, valkey_url: str, arguments: tuple[str, ...]) -> None:
    done = jobs(valkey_url, "dead", *arguments)
    said = "darkroom: name the jobs, as `darkroom jobs dead list` shows them, or say --all\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)
    assert (await dead.stats()).dead == 1


async def test_a_tenant_is_given_a_weight(valkey: Redis, valkey_url: str) -> None:
    assert jobs(valkey_url, "weigh", "ours", "2.5").stdout == "ours has a weight of 2.5 from now on.\n"
    done = jobs(valkey_url, "weigh", "ours", "0")
    assert (done.returncode, done.stderr) == (
        2,
        "darkroom: a tenant's weight is between 0.001 and 1000, not 0.0.\n",
    )


def test_a_server_that_is_away_is_said_in_a_line() -> None:
    done = jobs("unix:///nowhere.sock", "dead", "list")
    assert done.returncode == 1
    assert done.stderr.startswith("darkroom: No answer from the queue's server of DARKROOM_REDIS_URL: ")
    assert done.stderr.count("\n") == 1
