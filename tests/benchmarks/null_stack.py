"""A whole stack whose model costs nothing: Valkey as `darkroom up` has it, a gateway and a worker, each a process."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.cli.valkey import find_program, server_command
from tests.integration.servers import Server
from tests.system.processes import MODEL, Client, gateway, null_worker

WITHOUT_WORKER = "tiny-sd3"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class NullStack:
    client: Client
    redis_url: str
    pids: dict[str, int]

    @property
    def url(self) -> str:
        return self.client.url

    def cpu_s(self) -> dict[str, float]:
        """Processor seconds that each process has taken so far, and this one. Linux only."""
        return {name: _cpu_s(pid) for name, pid in {**self.pids, "client": os.getpid()}.items()}


@contextmanager
def null_stack(*, images: int = 256, rows: int = 64, **environment: str) -> Iterator[NullStack]:
    """images: most in flight at the worker."""
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as name:
        folder = Path(name)
        store_url = (folder / "images").as_uri()
        server = Server(folder, _durable(folder))
        server.start()
        try:
            told = {"DARKROOM_MAX_QUEUED": "10000000", "DARKROOM_MAX_OPEN": "10000000", "DARKROOM_LOG_LEVEL": "info"}
            own = {"DARKROOM_MAX_IMAGES": str(images), "DARKROOM_MAX_ROWS": str(rows), "DARKROOM_LEASE_S": "15"}
            with (
                gateway(folder, server.url, store_url, **told, **environment) as client,
                null_worker(folder, server.url, store_url, step_ms="0", DARKROOM_MODELS=MODEL, **own) as worker,
            ):
                pids = {"gateway": client.process.pid, "worker": worker.pid, "valkey": server.pid}
                yield NullStack(client, server.url, pids)
        finally:
            server.kill()


def _durable(folder: Path) -> tuple[str, ...]:
    command = server_command(find_program(), folder, folder / "valkey.sock")
    at = command.index("--appendonly")
    return tuple(command[at : at + 4])


def _cpu_s(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / _TICKS
