"""One open connection to an HTTP server, as cheap as can be: on a shared machine a client's own time is the server's.

Prepared requests go out as they are; of an answer, only its status and its body are read.
"""

import asyncio
import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import urlsplit

_LENGTH = b"\r\ncontent-length:"


def request(
    method: str, path: str, fields: Mapping[str, object] | None = None, *, headers: Mapping[str, str] | None = None
) -> bytes:
    """Write a request as it is sent."""
    sent = {"host": "localhost", **(headers or {})}
    body = b""
    if fields is not None:
        body = json.dumps(fields).encode()
        sent |= {"content-type": "application/json", "content-length": str(len(body))}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items()), "", ""]
    return "\r\n".join(lines).encode() + body


class Connection(asyncio.Protocol):
    """Sends one request at a time. Raises ConnectionError when the server hangs up."""

    def __init__(self) -> None:
        self._got = bytearray()
        self._needed: int | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls, url: str) -> Self:
        address = urlsplit(url)
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(cls, address.hostname or "", address.port or 80)
        return connection

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def send(self, request: bytes) -> tuple[int, bytes]:
        """Give the answer's status and body."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    async def ask(self, request: bytes, status: int) -> Any:
        """Give the answer's JSON. Raises RuntimeError for another status than this."""
        got, body = await self.send(request)
        if got != status:
            raise RuntimeError(f"{got} instead of {status}: {body[:500]!r}")
        return json.loads(body)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none of asyncio's classes

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the server hung up"))

    def data_received(self, data: bytes) -> None:
        self._got += data
        head = self._got.find(b"\r\n\r\n")
        if self._needed is None and head >= 0:
            at = self._got[:head].lower().find(_LENGTH)
            self._needed = head + 4 + (int(self._got[at + len(_LENGTH) : head].split(b"\r\n")[0]) if at >= 0 else 0)
        if self._needed is not None and len(self._got) >= self._needed and self._answer is not None:
            status, body = int(self._got[9:12]), bytes(self._got[self._got.find(b"\r\n\r\n") + 4 : self._needed])
            del self._got[: self._needed]
            self._needed = None
            answer, self._answer = self._answer, None
            if not answer.done():
                answer.set_result((status, body))
