"""The embedded stack: Valkey, workers and the gateway as children of this process.

    with Stack(StackOptions(data_dir=Path("darkroom-data"), models=("tiny-sd3",)), say=print) as stack:
        httpx.get(stack.url + "/v1/models")

Only files, a socket and the leashes join it to its children: whatever happens to this process, they end, and what they
accepted is on disk.
"""

import os
import secrets
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from redis import Redis
from redis import exceptions as redis_errors

from app.cli.address import Address
from app.cli.child import Child
from app.cli.crew import Crew
from app.cli.data_dir import DataDir
from app.cli.errors import NotReadyError
from app.cli.gpus import pinned
from app.cli.python_module import module_command, module_environment
from app.cli.valkey import (
    check_given_server,
    find_program,
    open_client,
    server_command,
    socket_url,
    wait_for_answer,
)
from app.jobs.keys import PREFIX

_VALKEY_GRACE_S = 10.0
_WORKER_GRACE_S = 15.0
_GATEWAY_GRACE_S = 5.0
_LOOK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class StackOptions:
    """models: as DARKROOM_MODELS has them, NAME or NAME=/folder. port: 0 for a free one.

    gpus: as CUDA_VISIBLE_DEVICES names them, one for each worker in turn; none: workers find what there is.
    """

    data_dir: Path
    models: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    gpus: tuple[str, ...] = ()
    ready_within_s: float | None = None


class Stack:
    """Entering starts everything and waits until it serves; leaving stops it in the order that loses nothing.

    Entering raises AddressError, DataDirError, RedisError, ChildError or NotReadyError, and leaves nothing running.
    `say` hears one line for each restart.
    """

    def __init__(self, options: StackOptions, say: Callable[[str], None]) -> None:
        self._options = options
        self._say = say
        self._address = Address(options.host, options.port)
        self._crew = Crew()
        self._exit = ExitStack()

    @property
    def url(self) -> str:
        """Where the gateway answers, once the stack is entered."""
        return self._address.url

    def __enter__(self) -> Self:
        with ExitStack() as started:
            self._start(started)
            self._exit = started.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()

    def supervise(self) -> None:
        """Start again whatever ends, until interrupted. Raises ChildError when one ends again and again."""
        self._crew.supervise(self._say)

    def _start(self, started: ExitStack) -> None:
        options = self._options
        give_up_s = None if options.ready_within_s is None else time.monotonic() + options.ready_within_s

        def check() -> None:
            self._crew.check()
            if give_up_s is not None and time.monotonic() > give_up_s:
                raise NotReadyError(f"Darkroom was not ready within {options.ready_within_s:g} seconds.")

        self._address = Address.free(options.host, options.port)
        data_dir = started.enter_context(DataDir(options.data_dir))
        started.callback(self._crew.stop)
        given_url = os.environ.get("DARKROOM_REDIS_URL")
        redis_url = given_url or self._start_valkey(data_dir)
        with open_client(redis_url) as redis, httpx.Client(base_url=self.url, trust_env=False) as http:
            if given_url:
                check_given_server(redis)
            else:
                wait_for_answer(redis, check)
            worker_ids = self._start_modules(data_dir, redis_url)
            while not serves(http, redis, worker_ids):
                check()
                time.sleep(_LOOK_EVERY_S)

    def _start_valkey(self, data_dir: DataDir) -> str:
        socket = data_dir.socket()
        command = server_command(find_program(), data_dir.valkey, socket)
        log = data_dir.logs / "valkey.log"
        # It keeps the lock: a next stack must not start while this one's Valkey, left alone, is still closing.
        self._crew.start(
            Child("valkey", command, os.environ, log, grace_s=_VALKEY_GRACE_S, keep_fds=[data_dir.lock_fd])
        )
        return socket_url(socket)

    def _start_modules(self, data_dir: DataDir, redis_url: str) -> list[str]:
        options = self._options
        environment = {
            **module_environment(),
            "DARKROOM_REDIS_URL": redis_url,
            "DARKROOM_STORE_URL": os.environ.get("DARKROOM_STORE_URL") or data_dir.images.as_uri(),
            "DARKROOM_MODELS": ",".join(options.models),
            "DARKROOM_HOST": self._address.host,
            "DARKROOM_PORT": str(self._address.port),
            "DARKROOM_TORCH_THREADS": torch_threads(options.workers),
        }
        run = secrets.token_hex(4)  # so that a heartbeat left by an earlier run's worker is not taken for this one's
        worker_ids = {f"worker-{number}": f"worker-{number}-{run}" for number in range(1, options.workers + 1)}

        def child(name: str, module: str, grace_s: float, **variables: str) -> Child:
            log = data_dir.logs / f"{name}.log"
            return Child(name, module_command(module), {**environment, **variables}, log, grace_s=grace_s)

        self._crew.start(
            *(
                child(name, "workers", _WORKER_GRACE_S, DARKROOM_WORKER_ID=worker_id, **pinned(options.gpus, number))
                for number, (name, worker_id) in enumerate(worker_ids.items())
            )
        )
        self._crew.start(child("gateway", "app", _GATEWAY_GRACE_S))
        return list(worker_ids.values())


def serves(http: httpx.Client, redis: Redis, worker_ids: list[str]) -> bool:
    """Whether the gateway is ready and each of these workers, not merely as many of any, has said that it lives."""
    try:
        answer = http.get("/readyz")
        beating = redis.exists(*(f"{PREFIX}worker:{worker_id}" for worker_id in worker_ids))
    except (httpx.TransportError, redis_errors.RedisError):
        return False
    return answer.is_success and answer.json()["workers"] >= len(worker_ids) == beating


def torch_threads(workers: int) -> str:
    """Threads of each worker's engine: as the environment says, or its share of the cores."""
    return os.environ.get("DARKROOM_TORCH_THREADS") or str(max(1, _cores() // workers))


def _cores() -> int:
    """Cores this process may use; less than the machine has, in a container or under taskset."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
