"""The gateway's listeners: one for its users, and one for its owner where a port of its own is set."""

import asyncio
import gc
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from app.api.admin import create_admin_app
from app.settings import GatewaySettings

# Without a limit, one client that stops in the middle of its body keeps the process from ending.
_SHUTDOWN_S = 3


def serve(app: FastAPI, settings: GatewaySettings) -> None:
    """Listen until the process is told to end. Exits with 1 when it cannot listen."""
    _collect_rarely()
    public = uvicorn.Server(_config(app, settings, settings.host, settings.port))
    if settings.admin_port is None:
        public.run()
        return
    admin = _Companion(_config(create_admin_app(app), settings, settings.admin_host, settings.admin_port))
    # Before anything runs: a port that is taken ends the process in one line, and nothing is half started.
    listening = admin.config.bind_socket()
    with asyncio.Runner(loop_factory=public.config.get_loop_factory()) as runner:
        runner.run(_both(public, admin, listening))


async def _both(public: uvicorn.Server, admin: uvicorn.Server, listening: socket.socket) -> None:
    watching = asyncio.create_task(admin.serve(sockets=[listening]))
    try:
        await public.serve()
    finally:
        admin.should_exit = True
        await watching


def _collect_rarely() -> None:
    # Each full collection looks at all there is, millions of objects while thousands wait, and nobody is answered
    # meanwhile: for seconds, on a busy machine. What the modules are made of stays anyway.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


class _Companion(uvicorn.Server):
    """A second server in one process: the signals are the first one's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _config(app: FastAPI, settings: GatewaySettings, host: str, port: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level=settings.log_level,
        access_log=False,
        timeout_graceful_shutdown=_SHUTDOWN_S,
    )
