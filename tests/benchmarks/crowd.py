"""A crowd that waits for jobs: some poll with `Prefer: wait`, again and again; some listen to events.

Every other stream is a job's `/events`, and the one between a drawing by OpenAI's API with `stream`.
"""

import asyncio
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.benchmarks.connection import Connection, request

_AT_ONCE = 50  # connections opened together: a server's backlog is finite


class Crowd:
    """Entering waits until all of them wait; leaving hangs up. errors: what nobody should be told.

    model: one without a worker, so that its jobs wait. jobs: how many the pollers wait for, in turns.
    """

    def __init__(self, url: str, *, model: str, jobs: int, pollers: int, streams: int, wait_s: int) -> None:
        self.errors: list[str] = []
        self.job_ids: list[str] = []
        self._url = url
        self._submit = request("POST", "/v1/images", {"prompt": "a ring", "model": model})
        self._drawing = request("POST", "/v1/images/generations", {"prompt": "a ring", "model": model, "stream": True})
        self._jobs = jobs
        self._pollers = pollers
        self._streams = streams
        self._wait_s = wait_s
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        with await Connection.open(self._url) as connection:
            self.job_ids = [(await connection.ask(self._submit, 202))["id"] for _ in range(self._jobs)]
        for first in range(0, self._pollers, _AT_ONCE):
            numbers = range(first, min(first + _AT_ONCE, self._pollers))
            connections = await asyncio.gather(*(Connection.open(self._url) for _ in numbers))
            for number, connection in zip(numbers, connections, strict=True):
                self._tasks.append(asyncio.create_task(self._poll(connection, self.job_ids[number % self._jobs])))
        for first in range(0, self._streams, _AT_ONCE):
            begun = [asyncio.Event() for _ in range(min(_AT_ONCE, self._streams - first))]
            asked = [
                self._drawing if at % 2 else request("GET", f"/v1/images/{self.job_ids[at % self._jobs]}/events")
                for at in range(first, first + len(begun))
            ]
            self._tasks += map(asyncio.create_task, map(self._listen, asked, begun))
            await asyncio.gather(*(event.wait() for event in begun))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def waiting(self) -> int:
        """How many have not got their answer."""
        return sum(not task.done() for task in self._tasks)

    async def _poll(self, connection: Connection, job_id: str) -> None:
        look = request("GET", f"/v1/images/{job_id}", headers={"prefer": f"wait={self._wait_s}"})
        with connection:
            try:
                while (await connection.ask(look, 200))["status"] == "queued":
                    pass
            except (ConnectionError, RuntimeError) as error:
                self.errors.append(f"poll: {error}")

    async def _listen(self, asked: bytes, begun: asyncio.Event) -> None:
        address = urlsplit(self._url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            writer.write(asked)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 ") or b"text/event-stream" not in head:
                self.errors.append(f"stream: {head!r}")
            begun.set()
            while line := await reader.readline():
                if line == b"event: error\n":
                    self.errors.append(f"stream: {await reader.readline()!r}")
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            self.errors.append(f"stream: {error}")
        finally:
            begun.set()
            writer.close()
