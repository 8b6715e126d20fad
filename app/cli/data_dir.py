"""The folder that holds everything a stack must not forget.

lock        held for as long as anything may write here
valkey/     the queue: Valkey's append-only files
images/     the pictures
logs/       one file a process, appended to
valkey.sock the queue's socket, where the path is short enough for one
"""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from app.cli.errors import DataDirError

# A unix socket's path has 104 bytes on macOS and 108 on Linux, its final zero byte included.
_SOCKET_PATH_BYTES = 100


class DataDir:
    """Used by one stack at a time: entering it takes the lock. Raises DataDirError."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.lock_fd = -1
        self._temporary: Path | None = None

    def __enter__(self) -> Self:
        try:
            for folder in (self.path, self.images, self.logs):
                folder.mkdir(parents=True, exist_ok=True)
            self.valkey.mkdir(mode=0o700, exist_ok=True)
            self.lock_fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DataDirError(
                f"Cannot use the data folder {self.path}: {error.strerror}. Choose another with --data-dir."
            ) from error
        try:
            fcntl.flock(self.lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self.lock_fd, 32, 0).decode(errors="replace").strip() or "unknown"
            self._close()
            raise DataDirError(
                f"The data folder {self.path} is in use by another Darkroom (process {holder}). Stop that one, or"
                " choose another folder with --data-dir. One that was just killed needs a few seconds to let go."
            ) from None
        os.ftruncate(self.lock_fd, 0)
        os.pwrite(self.lock_fd, f"{os.getpid()}\n".encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None
        self._close()

    @property
    def images(self) -> Path:
        return self.path / "images"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def valkey(self) -> Path:
        return self.path / "valkey"

    def socket(self) -> Path:
        """Give the path for Valkey's socket: here, or in a private folder that is removed at exit."""
        here = self.path / "valkey.sock"
        if len(os.fsencode(here)) <= _SOCKET_PATH_BYTES:
            return here
        self._temporary = self._temporary or Path(tempfile.mkdtemp(prefix="darkroom-"))
        return self._temporary / "valkey.sock"

    def _close(self) -> None:
        # Closing, not unlocking: a Valkey that outlives this process shares the lock and goes on holding it.
        os.close(self.lock_fd)
        self.lock_fd = -1
