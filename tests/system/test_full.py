"""No room on the image store's disk, or in the queue's memory: accepted jobs wait or finish, nothing half is served."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.integration.servers import Server, serving
from tests.processes import wait_until
from tests.system.processes import gateway, worker

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]  # processes that load torch, on a machine that may be busy


def _mount(folder: Path) -> str | None:
    """Put a disk of 1 MiB there; say why not."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    return done.stderr.strip() or None if done.returncode else None


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    why_not = _mount(folder)
    if why_not is not None:
        pytest.skip(f"may not mount: {why_not}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Take all the room that there is."""
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        try:
            while True:
                os.write(file.fileno(), bytes(4096))
        except OSError:
            pass
    yield
    ballast.unlink()


def half_written(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*#*") if path.is_file()]


def test_pictures_wait_for_room_on_a_full_disk_and_none_is_lost(
    tmp_path: Path, server: Server, tiny_disk: Path
) -> None:
    store_url = tiny_disk.as_uri()
    with (
        gateway(tmp_path, server.url, store_url, DARKROOM_MIN_FREE_MIB="0") as client,
        worker(tmp_path, server.url, store_url, DARKROOM_MIN_FREE_MIB="0") as drawing,
    ):
        earlier = client.submit(seed=1)
        client.wait(earlier, "completed")
        with filled(tiny_disk):
            first = client.submit(seed=2)
            drawing.wait_for("picture_not_stored_yet", 20)
            second = client.submit(seed=3)
            assert not wait_until(lambda: client.job(second)["status"] != "queued", 6), "it was claimed all the same"
            assert client.job(first)["status"] == "in_progress", "longer than its lease"
            assert client.content(first).status_code == 202
            assert client.content(earlier).content.startswith(b"\x89PNG")
            assert half_written(tiny_disk) == []
        for job_id in (first, second):
            client.wait(job_id, "completed")
            assert client.content(job_id).content.startswith(b"\x89PNG")
        assert half_written(tiny_disk) == []


def test_a_gateway_on_a_nearly_full_disk_takes_no_jobs_and_shows_pictures(
    tmp_path: Path, server: Server, tiny_disk: Path
) -> None:
    with gateway(tmp_path, server.url, tiny_disk.as_uri()) as client:
        answer = client.post()
        assert (answer.status_code, answer.json()["code"]) == (503, "storage_full")
        assert int(answer.headers["retry-after"]) > 0
        assert client.list() == []


async def test_jobs_in_hand_finish_while_the_queue_has_no_memory_for_more(tmp_path: Path, server: Server) -> None:
    store_url = (tmp_path / "images").as_uri()
    async with Redis.from_url(server.url) as redis:
        with (
            gateway(tmp_path, server.url, store_url) as client,
            worker(tmp_path, server.url, store_url),
        ):
            jobs = [client.submit(seed=seed, num_inference_steps=50) for seed in range(6)]
            await redis.config_set("maxmemory", 1)
            answer = client.post()
            assert (answer.status_code, answer.json()["code"]) == (503, "storage_full")
            for job_id in jobs:
                client.wait(job_id, "completed")
                assert client.content(job_id).content.startswith(b"\x89PNG")
            await redis.config_set("maxmemory", 0)
            client.wait(client.submit(), "completed")
