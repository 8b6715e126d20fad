"""The image store on a server that speaks S3: what hosts that share no disk have in common."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.jobs.queue import JobQueue
from app.jobs.schema import JobState
from app.jobs.store import ImageNotStoredError, StoreError, checkpoint_path, open_store, preview_path, result_path
from tests.integration.s3 import BUCKET, s3_serving
from tests.integration.worker_lab import MODEL, in_state, numbered, running, wait_until
from workers.engine.pipeline import StepPipeline

URL = f"s3://{BUCKET}/darkroom"
PATH = result_path("img_1", "token-1", 0, "png")


@pytest.fixture(scope="module")
def served() -> Iterator[dict[str, str]]:
    with s3_serving() as environment:
        yield environment


@pytest.fixture(autouse=True)
def _environment(served: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {**served, "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)


async def test_what_one_host_puts_another_gets() -> None:
    here, there = open_store(URL), open_store(URL)
    for data in (b"first", b"", bytes(range(256)) * 1000, bytes(12_000_000)):
        await here.put(PATH, data)
        assert await there.get(PATH) == data
    with pytest.raises(ImageNotStoredError):
        await open_store(f"s3://{BUCKET}/another-prefix").get(PATH)


async def test_what_is_deleted_is_gone_for_all_and_its_neighbours_are_not() -> None:
    here, there = open_store(URL), open_store(URL)
    deleted = [checkpoint_path("img_1", 0), preview_path("img_1", 0)]
    kept = [checkpoint_path("img_10", 0), PATH]
    for path in deleted + kept:
        await here.put(path, path.encode())
    for _ in range(2):
        await there.delete([*deleted, "results/img_1"])
    for path in deleted:
        with pytest.raises(ImageNotStoredError):
            await here.get(path)
    assert [await here.get(path) for path in kept] == [path.encode() for path in kept]


@pytest.mark.parametrize("path", ["../escaped", "results/../../escaped", "results//0.png", "a\nb"])
async def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    store = open_store(URL)
    with pytest.raises(StoreError):
        await store.put(path, b"bytes")
    with pytest.raises(StoreError):
        await store.get(path)


async def test_a_bucket_that_is_not_there_takes_nothing() -> None:
    with pytest.raises(StoreError, match="cannot store results/img_1"):
        await open_store("s3://nowhere/darkroom").put(PATH, b"bytes")


async def test_plain_http_must_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the README says: without AWS_ALLOW_HTTP the message is `builder error`."""
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(StoreError, match="builder error"):
        await open_store(URL).put(PATH, b"bytes")


@pytest.mark.parametrize("name", ["AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3"])
async def test_the_endpoint_has_other_names(monkeypatch: pytest.MonkeyPatch, name: str, served: dict[str, str]) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv(name, served["AWS_ENDPOINT_URL"])
    await open_store(URL).put(PATH, b"by another name")
    assert await open_store(URL).get(PATH) == b"by another name"


async def test_a_worker_goes_on_from_what_another_host_saved(queue: JobQueue, pipeline: StepPipeline) -> None:
    job, whole = numbered(1, num_inference_steps=100), numbered(2, num_inference_steps=100)
    async with running(queue, open_store(URL), pipeline):
        await queue.submit(job)
        await wait_until(queue, job, lambda record: record.progress is not None and record.progress.step > 10)
    async with running(queue, open_store(URL), pipeline) as other:
        record = await wait_until(queue, job, in_state(JobState.COMPLETED))
        assert other.sample("darkroom_jobs_resumed_total") == 1
        assert other.sample("darkroom_denoise_steps_total", model=MODEL) < 100
        await queue.submit(whole)
        uninterrupted = await wait_until(queue, whole, in_state(JobState.COMPLETED))
    assert record.result is not None
    assert uninterrupted.result is not None
    [image], [expected] = record.result.images, uninterrupted.result.images
    store = open_store(URL)
    assert await store.get(image.path) == await store.get(expected.path)
    with pytest.raises(ImageNotStoredError):
        await store.get(checkpoint_path(job.id, 0))
