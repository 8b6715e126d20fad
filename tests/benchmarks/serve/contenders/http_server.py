"""A contender that is one process with one route: it answers a request with its picture."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from app.cli.address import Address
from app.cli.child import Child
from app.cli.python_module import module_command, module_environment
from tests.benchmarks.serve.contenders.contender import (
    BATCH_HEADER,
    DRAW_PATH,
    ContenderError,
    DrawError,
    Picture,
)

_READY_WITHIN_S = 180.0
_GRACE_S = 20.0
_LOOK_EVERY_S = 0.2
_HOST = "127.0.0.1"


class HttpServer:
    """`python -m MODULE --port PORT ...` on a leash: it cannot outlive the benchmark."""

    def __init__(self, name: str, module: str, first_body: Mapping[str, object], *options: str) -> None:
        """first_body: a request that is asked for until it is answered; then the server is ready."""
        self.name = name
        self._module = module
        self._first_body = first_body
        self._options = options

    @contextmanager
    def running(self, folder: Path) -> Iterator[str]:
        address = Address.free(_HOST, 0)
        command = [*module_command(self._module), "--port", str(address.port), *self._options]
        environment = {**module_environment(), "OMP_NUM_THREADS": "1"}
        server = Child(self.name, command, environment, folder / f"{self.name}.log", grace_s=_GRACE_S)
        server.start()
        try:
            self._wait(server, address.url)
            yield address.url
        finally:
            server.end()
            server.wait()

    async def draw(self, client: httpx.AsyncClient, body: Mapping[str, object]) -> Picture:
        answer = await client.post(DRAW_PATH, json=body)
        received_s = time.monotonic()
        if answer.status_code != httpx.codes.OK:
            raise DrawError(f"{answer.status_code}: {answer.text[:200]}")
        return Picture(answer.content, received_s, int(answer.headers[BATCH_HEADER]))

    def _wait(self, server: Child, url: str) -> None:
        give_up_s = time.monotonic() + _READY_WITHIN_S
        with httpx.Client(base_url=url, timeout=_READY_WITHIN_S, trust_env=False) as client:
            while True:
                if server.exit_code is not None:
                    raise ContenderError(f"{self.name} ended: {_last(server)}")
                try:
                    if client.post(DRAW_PATH, json=self._first_body).is_success:
                        return
                except httpx.TransportError:
                    pass
                if time.monotonic() > give_up_s:
                    raise ContenderError(f"{self.name} was not ready in {_READY_WITHIN_S:g} s: {_last(server)}")
                time.sleep(_LOOK_EVERY_S)


def _last(server: Child) -> str:
    return " / ".join(server.last_lines()[-3:])
