"""Everything that is to be troubled: Valkey, a gateway, null workers and a real one, each supervised."""

import asyncio
import contextlib
import os
import random
import sys
from pathlib import Path

import httpx
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.cli.address import Address
from app.cli.valkey import find_program, server_command, socket_url
from app.jobs.keys import PREFIX
from app.jobs.scripts import connect
from tests.system.chaos.process import Launch, Process

NULL_MODEL = "tiny-flux-dev"
REAL_MODEL = "tiny-flux-schnell"
LEASE_S = 3.0
NULL_STEP_MS = 15
_TEND_EVERY_S = 0.02
_READY_WITHIN_S = 90.0


class Stack:
    """Entering starts it and waits until all of it serves; leaving kills it."""

    def __init__(self, folder: Path, *, null_workers: int, rng: random.Random) -> None:
        """folder: empty, and with a short path, since a unix socket's may not be longer than 100 bytes."""
        self._redis_url = socket_url(folder / "valkey.sock")
        self.logs = folder / "logs"
        for name in ("logs", "valkey", "images", "steps"):
            (folder / name).mkdir(parents=True)
        self._folder = folder
        self._address = Address.free("127.0.0.1", 0)
        self.redis: Redis = connect(self._redis_url)

        def process(name: str, *command: str, **variables: str) -> Process:
            def launch(life: str) -> Launch:
                return Launch(command, {**self._environment(), **variables, "DARKROOM_WORKER_ID": life})

            return Process(name, launch, self.logs, rng)

        python = sys.executable
        null = (python, "-m", "tests.system.chaos.null_worker", str(NULL_STEP_MS), str(folder / "steps"))
        server = server_command(find_program(), folder / "valkey", folder / "valkey.sock")
        self.valkey = process("valkey", *server)
        self.gateway = process("gateway", python, "-m", "app")
        self.nulls = [
            process(f"null-{i}", *null, DARKROOM_MODELS=NULL_MODEL, DARKROOM_MAX_IMAGES="24", DARKROOM_MAX_ROWS="32")
            for i in range(1, null_workers + 1)
        ]
        # One image at a time: in company the last bit of a real picture may differ, and here every byte is compared.
        self.real = process("real", python, "-m", "workers", DARKROOM_MODELS=REAL_MODEL, DARKROOM_MAX_IMAGES="1")
        self._ready: set[str] = set()

    @property
    def url(self) -> str:
        return self._address.url

    @property
    def null_steps(self) -> int:
        """Steps that null workers have taken, one a row, also those of lives that were cut short."""
        return sum(int(path.read_text()) for path in (self._folder / "steps").iterdir())

    @property
    def workers(self) -> dict[str, list[Process]]:
        """Lane -> who serves it."""
        return {NULL_MODEL: self.nulls, REAL_MODEL: [self.real]}

    @property
    def processes(self) -> list[Process]:
        return [self.valkey, self.gateway, *self.nulls, self.real]

    async def __aenter__(self) -> "Stack":
        self._supervisor = asyncio.create_task(self._supervise())
        try:
            await self.wait_until_ready()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._supervisor.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._supervisor
        for process in self.processes:
            process.close()
        await self.redis.aclose()

    def is_ready(self, process: Process) -> bool:
        """Whether this life of a worker has said that it serves. As of the last `look`."""
        return process.steady and process.life in self._ready

    async def look(self) -> None:
        """Find out which workers serve; nothing new is found while Valkey is away."""
        with contextlib.suppress(RedisError, OSError):
            for process in (process for workers in self.workers.values() for process in workers):
                key = f"{PREFIX}worker:{process.life}"
                if process.steady and process.life not in self._ready and await self.redis.exists(key):
                    self._ready.add(process.life)

    async def wait_until_ready(self) -> None:
        """Raises TimeoutError."""
        async with asyncio.timeout(_READY_WITHIN_S), httpx.AsyncClient(base_url=self.url, trust_env=False) as http:
            while not await self._serves(http):  # noqa: ASYNC110, other processes set no event
                await asyncio.sleep(0.1)

    async def _serves(self, http: httpx.AsyncClient) -> bool:
        try:
            await self.look()
            answer = await http.get("/readyz")
        except httpx.TransportError:
            return False
        return answer.is_success and all(self.is_ready(process) for process in [*self.nulls, self.real])

    async def _supervise(self) -> None:
        while True:
            for process in self.processes:
                process.tend()
            await asyncio.sleep(_TEND_EVERY_S)

    def _environment(self) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("DARKROOM_")},
            "OMP_NUM_THREADS": "1",
            "DARKROOM_REDIS_URL": self._redis_url,
            "DARKROOM_STORE_URL": (self._folder / "images").as_uri(),
            "DARKROOM_HOST": self._address.host,
            "DARKROOM_PORT": str(self._address.port),
            "DARKROOM_LEASE_S": str(LEASE_S),
            "DARKROOM_CHECKPOINT_EVERY_S": "0.2",
            "DARKROOM_CALIBRATION_S": "0",
            "DARKROOM_TORCH_THREADS": "1",
            "DARKROOM_DRAIN_TIMEOUT_S": "3",
            # Workers die here for no fault of their jobs.
            "DARKROOM_MAX_CRASHES": "50",
        }
