"""Where picture bytes live: a folder, S3, GCS, Azure or memory, all through obstore.

| path                                            | holds                               | deleted by            |
|-------------------------------------------------|-------------------------------------|-----------------------|
| results/<job id>/<claim token>/<index>.<format> | a finished picture                  | the gateway, in time  |
| checkpoints/<job id>-<index>.safetensors        | latents of a picture half developed | the worker, see below |
| previews/<job id>-<index>.jpg                   | the latest preview of a picture     | the worker, see below |
| queue                                           | which queue the store belongs to    | nobody: see sweep.py  |

The token in a result's path keeps two workers that drew the same job apart; readers follow the job's record only. A
checkpoint has none, since it is for whichever worker comes next, and neither has a preview: the latest one counts. The
worker that holds a job deletes both when the job is over. What is left behind, by a job that is canceled between two
attempts or by a worker that died, is swept up: see sweep.py.

In a folder each file is written under its name with "#" and a number added, and renamed when it is whole; no path leads
to such a file. Whoever is killed while writing leaves one behind, which `tidy` deletes.
"""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, MemoryStore, ObjectStore, from_url

RESULTS, CHECKPOINTS, PREVIEWS = "results", "checkpoints", "previews"


class StoreError(Exception):
    """The store could not keep or give the bytes."""


class ImageNotStoredError(StoreError):
    """There are no bytes at this path (any more)."""


# A path with "..", "//" or a control character is refused with a ValueError, before anything is touched.
_PAGE = 1000
_REFUSALS = (BaseError, OSError, ValueError)


# object_store's LocalFileSystem, "staged" files: https://docs.rs/object_store/latest/object_store/local/
_HALF_WRITTEN = re.compile(r".+#\d+")


@dataclass(frozen=True, slots=True)
class Stored:
    """Where something lies. modified_s: since the epoch, by the store's clock."""

    path: str
    modified_s: float


class ImageStore:
    """Bytes by path. A path is written whole or not at all. folder: where it is on a disk, if it is on one."""

    def __init__(self, store: ObjectStore, folder: Path | None = None) -> None:
        self._store = store
        self._folder = folder

    async def put(self, path: str, data: bytes) -> None:
        """Raises StoreError."""
        try:
            await obstore.put_async(self._store, path, data)
        except _REFUSALS as error:
            raise StoreError(f"cannot store {path}: {_first_line(error)}") from error

    async def get(self, path: str) -> bytes:
        """Raises ImageNotStoredError or StoreError."""
        try:
            result = await obstore.get_async(self._store, path)
            return bytes(await result.bytes_async())
        except FileNotFoundError as error:
            raise ImageNotStoredError(f"nothing is stored at {path}") from error
        except _REFUSALS as error:
            raise StoreError(f"cannot read {path}: {_first_line(error)}") from error

    async def delete(self, paths: Iterable[str]) -> None:
        """Forget what is at these paths, where anything is. Tries each of them before it raises StoreError."""
        outcomes = await asyncio.gather(*(self._delete(path) for path in paths), return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    async def pages(self, folder: str) -> AsyncIterator[list[Stored]]:
        """List all that is under a folder, a page at a time. Raises StoreError."""
        try:
            async for page in obstore.list(self._store, folder, chunk_size=_PAGE):
                yield [Stored(str(found["path"]), found["last_modified"].timestamp()) for found in page]
        except FileNotFoundError:
            pass
        except _REFUSALS as error:
            raise StoreError(f"cannot list {folder}: {_first_line(error)}") from error

    def free_bytes(self) -> int | None:
        """What is left of the disk; None for a store that has no end. Blocks for as long as a network's disk hangs.

        Raises StoreError.
        """
        if self._folder is None:
            return None
        try:
            disk = os.statvfs(self._folder)
        except OSError as error:
            raise StoreError(f"cannot look at the disk of the image store: {error.strerror}") from error
        return disk.f_bavail * disk.f_frsize

    async def tidy(self, older_than_s: float) -> int:
        """Delete what was left half-written by processes that were killed, once it is so old; say how many files.

        Its age is by this machine's clock and the disk's, so allow for their difference. Raises StoreError.
        """
        if self._folder is None:
            return 0
        try:
            return await asyncio.to_thread(_delete_half_written, self._folder, time.time() - older_than_s)
        except OSError as error:
            raise StoreError(f"cannot tidy the image store: {error.strerror}") from error

    async def _delete(self, path: str) -> None:
        try:
            await obstore.delete_async(self._store, path)
        except FileNotFoundError:
            pass  # clouds and memory say nothing, a folder says this
        except (*_REFUSALS, TypeError) as error:  # a path that put refuses with a ValueError is a TypeError here
            raise StoreError(f"cannot delete {path}: {_first_line(error)}") from error


def open_store(url: str) -> ImageStore:
    """Open file:///folder (made if missing), s3://bucket/prefix, gs://, az:// or memory://.

    Credentials come from the environment as each cloud's own tools read them. Raises StoreError.
    """
    try:
        scheme = urlsplit(url).scheme
        match scheme:
            case "file":
                folder = _folder(url)
                return ImageStore(LocalStore(folder, mkdir=True, automatic_cleanup=True), folder)
            case "memory":
                return ImageStore(MemoryStore())
            case "s3" | "gs" | "az":
                return ImageStore(from_url(url))
            case _:
                raise ValueError(f"scheme {scheme!r} is none of file, s3, gs, az, memory")
    except _REFUSALS as error:
        raise StoreError(f"cannot open the image store {url!r}: {_first_line(error)}") from error


def result_path(job_id: str, token: str, index: int, extension: str) -> str:
    return f"{RESULTS}/{job_id}/{token}/{index}.{extension}"


def checkpoint_path(job_id: str, index: int) -> str:
    return f"{CHECKPOINTS}/{job_id}-{index}.safetensors"


def preview_path(job_id: str, index: int) -> str:
    return f"{PREVIEWS}/{job_id}-{index}.jpg"


def _folder(url: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc or parts.query or parts.fragment or not parts.path.startswith("/"):
        raise ValueError("a folder is written file:///absolute/path, with %23 for # and %3F for ?")
    return Path(unquote(parts.path))


def _delete_half_written(folder: Path, before_s: float) -> int:
    deleted = 0
    for where, _, names in os.walk(folder):
        for path in (Path(where, name) for name in names if _HALF_WRITTEN.fullmatch(name)):
            try:
                if path.stat().st_mtime < before_s:
                    path.unlink()
                    deleted += 1
            except FileNotFoundError:
                pass  # finished or deleted since
    return deleted


def _first_line(error: Exception) -> str:
    # obstore appends a page of its own structures.
    return str(error).partition("\n")[0]
