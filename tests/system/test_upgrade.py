"""A rolling restart from one version of the code to the next, and back: whoever is of which, no job is lost."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.processes import wait_until
from tests.system.next_version import NEW_WORD, VERSION, write_next_version
from tests.system.processes import NULL_MODEL, Client, Process, gateway, null_worker

log = logging.getLogger(__name__)

_EVERY_S = 0.1
_SEEDS = 5
_ENOUGH = 10
_PAGE = 20


class Load:
    """Jobs that flow to one gateway or another; every third has the word of which the next version makes something."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._switching = threading.Lock()
        self._is_next = False
        self._stopping = threading.Event()
        self.accepted: list[str] = []
        self.for_next_version: set[str] = set()

    @contextmanager
    def flowing(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            thread.join()

    def switch(self, client: Client, *, is_next: bool) -> None:
        with self._switching:
            self._client, self._is_next = client, is_next

    def goes_on(self) -> None:
        """Wait until some more jobs were accepted."""
        enough = len(self.accepted) + _ENOUGH
        assert wait_until(lambda: len(self.accepted) >= enough, 60), f"{len(self.accepted)} accepted, then no more"

    def _run(self) -> None:
        number = 0
        while not self._stopping.wait(_EVERY_S):
            number += 1
            prompt = f"a small red ring, {NEW_WORD}" if number % 3 == 0 else "a small red ring"
            with self._switching:
                job_id = self._client.submit(
                    model=NULL_MODEL, prompt=prompt, seed=number % _SEEDS, num_inference_steps=20
                )
                self.accepted.append(job_id)
                if self._is_next and NEW_WORD in prompt:
                    self.for_next_version.add(job_id)


def leave(worker: Process) -> None:
    worker.send(signal.SIGTERM)
    assert worker.wait(30) == 0


@pytest.mark.system
@pytest.mark.timeout(900)
def test_versions_live_side_by_side_on_the_way_there_and_back(tmp_path: Path, valkey: Redis, valkey_url: str) -> None:
    next_root = tmp_path / "next"
    write_next_version(next_root)
    address = (tmp_path, valkey_url, (tmp_path / "images").as_uri())
    old_gateway, old_worker = partial(gateway, *address), partial(null_worker, *address)
    next_gateway = partial(gateway, *address, root=str(next_root))
    next_worker = partial(null_worker, *address, root=str(next_root))
    with ExitStack() as running:
        client = running.enter_context(old_gateway("gateway-1"))
        old = running.enter_context(old_worker("old-1"))
        load = Load(client)
        with load.flowing():
            load.goes_on()

            after = running.enter_context(next_gateway("gateway-2"))
            load.switch(after, is_next=True)
            client.process.end()
            old.wait_for("job_of_a_newer_version", 60)
            load.goes_on()

            new = running.enter_context(next_worker("next-1"))
            after.wait(next(iter(load.for_next_version)), "completed")
            load.goes_on()
            leave(old)
            load.goes_on()

            back = running.enter_context(old_gateway("gateway-3"))
            load.switch(back, is_next=False)
            after.process.end()
            load.goes_on()
            assert len(back.list()) == _PAGE, "records of the next version are shown"
            assert back.workers_live(NULL_MODEL) == 1

            running.enter_context(old_worker("old-2"))
            load.goes_on()
            for job_id in load.for_next_version:
                back.wait(job_id, "completed")
            leave(new)
            load.goes_on()
        views = {job_id: back.wait(job_id, "completed") for job_id in load.accepted}

    versions = {job_id: view["parameters"]["worker_version"] for job_id, view in views.items()}
    assert {versions[job_id] for job_id in load.for_next_version} == {VERSION}
    assert len(set(versions.values())) == 2
    pictures: dict[tuple[str, int, bool], set[str]] = {}
    for job_id, view in views.items():
        drawn_from = (view["parameters"]["prompt"], view["parameters"]["seed"], job_id in load.for_next_version)
        pictures.setdefault(drawn_from, set()).add(view["data"][0]["sha256"])
    assert {len(sha256) for sha256 in pictures.values()} == {1}, "what does not change a picture changed its bytes"
    declined = len(old.events("job_of_a_newer_version"))
    log.info("%d jobs, %d for the next version, handed back %d times", len(views), len(load.for_next_version), declined)
