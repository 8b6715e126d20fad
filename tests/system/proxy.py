"""A line to the queue's server that a test can cut, hang and slow down, or let lose, repeat and hold commands."""

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum, auto

from tests.system.resp import command_name, element_end, is_message

_DELAY_S = 0.5  # each way
_SECONDS_A_BYTE = 1.0
_HANDSHAKE = frozenset({"HELLO", "AUTH", "SELECT", "CLIENT"})  # of the client library, not of a caller


class Mode(Enum):
    """What becomes of everything on the line. A connection that swallowed something hangs for ever, as one does whose
    router forgot it; one made later works."""

    PASS = auto()
    CUT = auto()  # connections are reset, new ones as well
    HALF_OPEN = auto()  # connections are accepted and kept, and nothing comes through
    DEAF = auto()  # what is asked arrives, what is answered does not
    DELAY = auto()  # half a second each way
    THROTTLE = auto()  # one byte a second each way


class Fault(Enum):
    """What becomes of one command and its reply."""

    DROPPED = auto()  # the command arrives; instead of its reply comes the end of the connection
    TWICE = auto()  # the command arrives twice; the second reply comes back
    SLOW = auto()  # the reply comes late
    OVERTAKEN = auto()  # the command arrives late: after what its caller has sent since, on other connections
    _SWALLOWED = auto()  # the reply to the first of two


class Proxy:
    """Listens on `url`; carries to a server's unix socket."""

    def __init__(self, server_socket: str) -> None:
        self._server_socket = server_socket
        self._connections: set[_Connection] = set()
        self._open = 0
        self._mode = Mode.PASS
        self._changed = asyncio.Event()
        self._armed: deque[Fault | None] = deque()
        self.late_s = 0.0
        self.held = 0
        self.url = ""

    @property
    def mode(self) -> Mode:
        return self._mode

    def set(self, mode: Mode) -> None:
        self._mode = mode
        self._changed.set()
        self._changed = asyncio.Event()
        for connection in list(self._connections):
            if mode is Mode.CUT:
                connection.reset()
            elif mode is Mode.HALF_OPEN:
                connection.hangs = True
            elif mode is Mode.DEAF:
                connection.is_deaf = True

    def arm(self, fault: Fault, *, after: int = 0, times: int = 1, late_s: float = 0.0) -> None:
        """Let this befall the next `times` commands, once `after` others have passed, on whatever connections."""
        self._armed = deque([None] * after + [fault] * times)
        self.late_s = late_s

    @property
    def armed(self) -> int:
        """How many faults have not come yet."""
        return len(self._armed)

    def next_fault(self, command: bytes) -> Fault | None:
        if not self._armed or command_name(command) in _HANDSHAKE:
            return None
        return self._armed.popleft()

    async def wait_for_change(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), timeout_s)

    async def settled(self) -> None:
        """Wait until nothing that was held back is still on its way."""
        while self.held:
            await self.wait_for_change(0.005)

    async def accept(self, caller: asyncio.StreamReader, to_caller: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            server, to_server = await asyncio.open_unix_connection(self._server_socket)
        except OSError:  # the server is away itself
            to_caller.transport.abort()
            self._open -= 1
            return
        connection = _Connection(self, caller, to_caller, server, to_server)
        self._connections.add(connection)
        try:
            await connection.carry()
        finally:
            self._connections.discard(connection)
            self._open -= 1

    async def close(self) -> None:
        await asyncio.sleep(0.01)  # whoever came last is accepted
        while self._open:
            for connection in list(self._connections):
                connection.reset()
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)  # an ended transport closes its socket a moment later


class _Connection:
    def __init__(
        self,
        proxy: Proxy,
        caller: asyncio.StreamReader,
        to_caller: asyncio.StreamWriter,
        server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._caller, self._to_caller, self._server, self._to_server = caller, to_caller, server, to_server
        self._replies: deque[Fault | None] = deque()  # what is to become of each that is still to come
        self._ways: list[asyncio.Task[None]] = []
        self.hangs = proxy.mode is Mode.HALF_OPEN
        self.is_deaf = proxy.mode is Mode.DEAF

    async def carry(self) -> None:
        if self._proxy.mode is Mode.CUT:
            self.reset()
            return
        self._ways = [asyncio.create_task(self._there()), asyncio.create_task(self._back())]
        await asyncio.wait(self._ways, return_when=asyncio.FIRST_COMPLETED)
        self.reset()
        await asyncio.gather(*self._ways, return_exceptions=True)

    def reset(self) -> None:
        """End both sides at once, the caller's with an RST."""
        line: socket.socket = self._to_caller.get_extra_info("socket")
        with contextlib.suppress(OSError):
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._to_caller.transport.abort()
        self._to_server.transport.abort()
        for way in self._ways:
            way.cancel()

    async def _there(self) -> None:
        async for due_s, command in self._elements(self._caller):
            fault = self._proxy.next_fault(command)
            if fault is Fault.OVERTAKEN:
                await self._hold(command)
                continue
            if fault is Fault.TWICE:
                self._replies.append(Fault._SWALLOWED)
                self._to_server.write(command)
            self._replies.append(fault)
            await self._pass(command, due_s, self._to_server)

    async def _hold(self, command: bytes) -> None:
        # Its caller may have hung up when it arrives, as a packet's sender may have.
        self._proxy.held += 1
        try:
            await asyncio.sleep(self._proxy.late_s)
            self._replies.append(None)
            self._to_server.write(command)
            await asyncio.sleep(0.02)  # the server reads it before it sees the end of the connection
        finally:
            self._proxy.held -= 1

    async def _back(self) -> None:
        async for due_s, reply in self._elements(self._server):
            fault = None if is_message(reply) or not self._replies else self._replies.popleft()
            if fault is Fault._SWALLOWED:
                continue
            if fault is Fault.DROPPED:
                return
            if fault is Fault.SLOW:
                await asyncio.sleep(self._proxy.late_s)
            if not self.is_deaf:
                await self._pass(reply, due_s, self._to_caller)

    async def _elements(self, reader: asyncio.StreamReader) -> AsyncIterator[tuple[float, bytes]]:
        """What comes in, each with when it is due on the other side: reading goes on while it waits."""
        loop = asyncio.get_running_loop()
        elements: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue()

        async def read() -> None:
            data = bytearray()
            with contextlib.suppress(OSError):
                while chunk := await reader.read(65536):
                    data += chunk
                    while data and (end := element_end(data)):
                        delay_s = _DELAY_S if self._proxy.mode is Mode.DELAY else 0.0
                        elements.put_nowait((loop.time() + delay_s, bytes(data[:end])))
                        del data[:end]
            elements.put_nowait(None)

        reading = asyncio.create_task(read())
        try:
            while element := await elements.get():
                yield element
        finally:
            reading.cancel()

    async def _pass(self, data: bytes, due_s: float, out: asyncio.StreamWriter) -> None:
        await asyncio.sleep(max(0.0, due_s - asyncio.get_running_loop().time()))
        if self.hangs:
            return
        while data and self._proxy.mode is Mode.THROTTLE:
            out.write(data[:1])
            data = data[1:]
            await self._proxy.wait_for_change(_SECONDS_A_BYTE)
        if not self.hangs:
            out.write(data)


@asynccontextmanager
async def proxied(server_url: str) -> AsyncIterator[Proxy]:
    """A line to the server at this unix:// URL, for as long as the block lasts."""
    proxy = Proxy(server_url.removeprefix("unix://"))
    listener = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.url = f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}/0"
    try:
        yield proxy
    finally:
        listener.close()
        await proxy.close()
