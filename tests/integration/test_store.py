"""The image store over a real folder and over memory."""

import asyncio
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from app.jobs.store import (
    ImageNotStoredError,
    ImageStore,
    StoreError,
    checkpoint_path,
    open_store,
    preview_path,
    result_path,
)

PATH = result_path("img_1", "token-1", 0, "png")


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ImageStore:
    return open_store("memory://" if request.param == "memory" else tmp_path.as_uri())


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_result_has_a_path_of_its_job_its_claim_and_its_index() -> None:
    assert result_path("img_1", "abc", 2, "webp") == "results/img_1/abc/2.webp"


def test_a_checkpoint_and_a_preview_have_paths_of_their_job_and_index() -> None:
    assert checkpoint_path("img_1", 2) == "checkpoints/img_1-2.safetensors"
    assert preview_path("img_1", 2) == "previews/img_1-2.jpg"


async def test_what_is_put_can_be_got(store: ImageStore) -> None:
    for data in (b"first", b"", bytes(range(256)) * 1000):
        await store.put(PATH, data)
        assert await store.get(PATH) == data


async def test_what_was_not_put_is_not_stored(store: ImageStore) -> None:
    with pytest.raises(ImageNotStoredError):
        await store.get(PATH)
    await store.put(PATH, b"bytes")
    for path in ("results/img_1/token-1/1.png", "results/img_1/token-1", "results"):
        with pytest.raises(StoreError):
            await store.get(path)


async def test_what_is_put_again_replaces_what_was_there(store: ImageStore) -> None:
    path = preview_path("img_1", 0)
    for data in (b"a long first preview", b"short"):
        await store.put(path, data)
    assert await store.get(path) == b"short"


async def test_what_is_deleted_is_not_stored_and_its_neighbours_are(store: ImageStore) -> None:
    deleted = [checkpoint_path("img_1", 0), checkpoint_path("img_1", 1), preview_path("img_1", 0)]
    kept = [checkpoint_path("img_1", 2), checkpoint_path("img_10", 0), preview_path("img_1", 1), PATH]
    for path in deleted + kept:
        await store.put(path, path.encode())
    await store.delete(deleted)
    for path in deleted:
        with pytest.raises(ImageNotStoredError):
            await store.get(path)
    assert [await store.get(path) for path in kept] == [path.encode() for path in kept]
    await store.put(deleted[0], b"again")
    assert await store.get(deleted[0]) == b"again"


async def test_deleting_what_is_not_there_is_fine_and_forgets_the_rest(store: ImageStore) -> None:
    await store.delete([])
    await store.delete([PATH])
    await store.put(PATH, b"bytes")
    paths = [checkpoint_path("img_1", 0), PATH, checkpoint_path("img_1", 1), PATH]
    for _ in range(2):
        await store.delete(paths)
        with pytest.raises(ImageNotStoredError):
            await store.get(PATH)


async def test_deleting_never_takes_a_folder_with_its_files(store: ImageStore) -> None:
    await store.put(PATH, b"bytes")
    for folder in ("results", "results/img_1", "results/img_1/token-1"):
        with suppress(StoreError):  # a folder on a disk refuses; elsewhere there are none
            await store.delete([folder])
    assert await store.get(PATH) == b"bytes"


async def test_what_cannot_be_deleted_is_a_store_error_after_the_others_are_gone(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    others = [preview_path("img_1", index) for index in range(300)]
    for path in others:
        await store.put(path, b"bytes")
    (tmp_path / "checkpoints").write_text("a file where a folder must be; even root cannot look below it")
    with pytest.raises(StoreError, match="cannot delete checkpoints/img_1-0"):
        await store.delete([checkpoint_path("img_1", 0), *others])
    assert files(tmp_path) == ["checkpoints"]


@pytest.mark.parametrize(
    "path", ["../escaped", "results/../../escaped", "results/..", "./escaped", "results//0.png", "a\nb", "a\0b"]
)
async def test_a_path_that_leads_elsewhere_is_refused(tmp_path: Path, path: str) -> None:
    folder = tmp_path / "store"
    for store in (open_store(folder.as_uri()), open_store("memory://")):
        with pytest.raises(StoreError):
            await store.put(path, b"bytes")
        with pytest.raises(StoreError):
            await store.get(path)
        with pytest.raises(StoreError):
            await store.delete([path])
    assert files(tmp_path) == []


async def test_an_absolute_or_encoded_path_stays_inside(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    store = open_store(folder.as_uri())
    await store.put("/etc/passwd", b"inside")
    await store.put("%2e%2e/escaped", b"inside")
    assert files(tmp_path) == ["store/%2e%2e/escaped", "store/etc/passwd"]


@pytest.mark.parametrize(
    ("written", "folder"),
    [
        ("a b/pictures", "a b/pictures"),
        ("a%20b", "a b"),
        ("100%25", "100%"),
        ("Ünïcode/画像", "Ünïcode/画像"),
        ("%C3%9C", "Ü"),
        ("why%3F%23", "why?#"),
        ("deep/down/there", "deep/down/there"),
        ("slash/", "slash"),
    ],
)
async def test_a_file_url_names_its_folder_which_is_made(tmp_path: Path, written: str, folder: str) -> None:
    store = open_store(f"file://{tmp_path}/{written}")
    assert (tmp_path / folder).is_dir()
    await store.put(PATH, b"bytes")
    assert (tmp_path / folder / PATH).read_bytes() == b"bytes"


async def test_a_folder_of_any_name_is_reached_by_its_uri(tmp_path: Path) -> None:
    folder = tmp_path / "50% off? #1 & more; ünïcode"
    await open_store(folder.as_uri()).put(PATH, b"bytes")
    assert (folder / PATH).read_bytes() == b"bytes"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("file://relative/folder", "file:///absolute"),
        ("file://localhost/tmp", "file:///absolute"),
        ("file:relative", "file:///absolute"),
        ("file://", "file:///absolute"),
        ("file:///tmp/a#b", "%23"),
        ("file:///tmp/a?b", "%3F"),
        ("ftp://host/folder", "'ftp' is none of file, s3, gs, az, memory"),
        ("https://host/folder", "'https' is none of"),
        ("/just/a/folder", "'' is none of"),
        ("", "'' is none of"),
        ("s3://", "s3://"),
        ("file:///tmp/a%00b", "NUL|null"),
    ],
)
def test_a_url_that_is_no_store_is_an_error_in_one_line(url: str, why: str) -> None:
    with pytest.raises(StoreError, match=why) as error:
        open_store(url)
    assert repr(url) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_cloud_store_opens_without_asking_the_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    for url in ("s3://bucket/prefix", "gs://bucket/prefix", "az://container/prefix"):
        open_store(url)


async def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    pictures = [bytes([number]) * (1_000_000 + number) for number in range(4)]
    await store.put(PATH, pictures[0])
    seen: set[bytes] = set()
    writing = True

    async def read() -> None:
        while writing:
            seen.add(await store.get(PATH))

    readers = [asyncio.create_task(read()) for _ in range(3)]
    for number in range(60):
        await store.put(PATH, pictures[number % 4])
    writing = False
    await asyncio.gather(*readers)
    assert len(seen) > 1
    assert seen <= set(pictures)
    assert files(tmp_path) == [PATH]


@contextmanager
def disk_with_room_for(size_bytes: int) -> Iterator[None]:
    """Let writes beyond this size of a file fail midway, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


async def test_a_disk_that_fills_midway_leaves_nothing_behind(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    with disk_with_room_for(10_000), pytest.raises(StoreError, match="cannot store results/img_1"):
        await store.put(PATH, bytes(1_000_000))
    with pytest.raises(ImageNotStoredError):
        await store.get(PATH)
    assert files(tmp_path) == []
    await store.put(PATH, b"there is room again")


async def test_a_folder_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    (tmp_path / "results").write_text("a file where a folder must be; even root cannot write below it")
    with pytest.raises(StoreError, match="cannot store results/img_1"):
        await store.put(PATH, b"bytes")
    with pytest.raises(StoreError):
        open_store((tmp_path / "results" / "below").as_uri())


async def test_what_cannot_be_read_is_a_store_error_but_not_missing(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    loop = tmp_path / "results"
    loop.symlink_to(loop)  # as unreadable for root as for everybody
    with pytest.raises(StoreError) as error:
        await store.get(PATH)
    assert not isinstance(error.value, ImageNotStoredError)


async def test_half_written_files_of_the_killed_are_never_got_and_go_when_they_are_old(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    await store.put(PATH, b"whole")
    whole = tmp_path / PATH
    old, young = whole.with_name("1.png#1"), whole.with_name("1.png#2")
    for path in (old, young, whole):
        path.write_bytes(b"whole" if path is whole else b"ha")
    for path in (old, whole):
        os.utime(path, (0, 0))
    for name in ("1.png", "1.png#1", "1.png%231"):
        with pytest.raises(StoreError):
            await store.get(str(Path(PATH).with_name(name)))
    assert await store.tidy(older_than_s=60) == 1
    assert files(tmp_path) == [PATH, str(young.relative_to(tmp_path))]
    assert await open_store("memory://").tidy(older_than_s=0) == 0


def _kill_in_the_middle(command: list[str]) -> None:
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(random.uniform(0.01, 0.05))
        process.kill()


async def test_a_process_killed_while_it_writes_leaves_nothing_that_can_be_got(tmp_path: Path) -> None:
    """Shows that `tidy` knows the files by their real names."""
    writer = (
        "import asyncio, sys\nfrom app.jobs.store import open_store\n"
        "async def main():\n"
        "    store = open_store(sys.argv[1])\n"
        "    print(flush=True)\n"
        "    while True: await store.put(sys.argv[2], bytes(4_000_000))\n"
        "asyncio.run(main())\n"
    )
    for _ in range(20):
        _kill_in_the_middle([sys.executable, "-c", writer, tmp_path.as_uri(), PATH])
        if set(files(tmp_path)) - {PATH}:
            break
    store = open_store(tmp_path.as_uri())
    left = set(files(tmp_path)) - {PATH}
    assert left, "it was never caught in the middle"
    assert await store.tidy(older_than_s=-60) == len(left)
    assert set(files(tmp_path)) <= {PATH}
    with suppress(ImageNotStoredError):
        assert await store.get(PATH) == bytes(4_000_000)


async def test_only_a_disk_has_an_end(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    store = open_store(folder.as_uri())
    free_bytes = store.free_bytes()
    assert free_bytes is not None
    assert 0 < free_bytes < shutil.disk_usage(tmp_path).total
    assert open_store("memory://").free_bytes() is None
    folder.rmdir()
    with pytest.raises(StoreError, match="cannot look at the disk"):
        store.free_bytes()
