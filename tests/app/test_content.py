"""An image's bytes: before they are there, when they are, and when they never will be."""

from pathlib import Path

import pytest

from tests.app.gateway import Gateway, check_error, sha256


async def completed(gateway: Gateway, *pictures: bytes, **fields: object) -> str:
    """Give the address of a finished job's bytes."""
    job_id: str = (await gateway.submit(**fields))["id"]
    await gateway.complete(await gateway.claim(), *pictures)
    return f"/v1/images/{job_id}/content"


async def test_before_it_is_ready_there_is_a_time_to_look_again(gateway: Gateway) -> None:
    url = f"/v1/images/{(await gateway.submit())['id']}/content"
    queued = await gateway.client.get(url)
    await gateway.claim()
    in_progress = await gateway.client.get(url)
    for response in (queued, in_progress):
        assert (response.status_code, response.content) == (202, b"")
        assert int(response.headers["retry-after"]) >= 1


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
async def test_the_bytes_come_with_their_type_and_hash(gateway: Gateway, output_format: str) -> None:
    url = await completed(gateway, b"\x00\xffpicture", output_format=output_format)
    response = await gateway.client.get(url)
    assert (response.status_code, response.content) == (200, b"\x00\xffpicture")
    assert response.headers["content-type"] == f"image/{output_format}"
    assert response.headers["etag"] == f'"{sha256(response.content)}"'
    assert response.headers["cache-control"] == "private, max-age=31536000, immutable"


async def test_each_image_has_its_index(gateway: Gateway) -> None:
    url = await completed(gateway, b"zero", b"one", b"two", n=3)
    pictures = [(await gateway.client.get(url, params={"index": index})).content for index in range(3)]
    assert pictures == [b"zero", b"one", b"two"]
    assert (await gateway.client.get(url)).content == b"zero"


PICTURE_SHA256 = sha256(b"picture")


@pytest.mark.parametrize(
    ("known", "status"),
    [
        (f'"{PICTURE_SHA256}"', 304),
        (f'W/"{PICTURE_SHA256}"', 304),
        (f'"other", "{PICTURE_SHA256}"', 304),
        ("*", 304),
        ('"other"', 200),
        ("", 200),
    ],
)
async def test_a_picture_that_the_client_has_is_not_sent_again(gateway: Gateway, known: str, status: int) -> None:
    url = await completed(gateway, b"picture")
    response = await gateway.client.get(url, headers={"if-none-match": known})
    assert response.status_code == status
    assert response.content == (b"picture" if status == 200 else b"")
    assert response.headers["etag"] == f'"{PICTURE_SHA256}"'


@pytest.mark.parametrize(
    ("index", "answer"),
    [
        ("1", "404 image_not_found"),
        (str(10**30), "404 image_not_found"),
        ("-1", "422 invalid_index"),
        ("one", "422 invalid_index"),
        ("", "422 invalid_index"),
        ("9" * 5_000, "422 invalid_index"),
        ("0.5", "422 invalid_index"),
    ],
)
async def test_an_image_that_the_job_does_not_have(gateway: Gateway, index: str, answer: str) -> None:
    for url in (f"/v1/images/{(await gateway.submit())['id']}/content", await completed(gateway, b"picture")):
        body = check_error(await gateway.client.get(url, params={"index": index}))
        assert f"{body['status']} {body['code']}" == answer
        if body["status"] == 422:
            assert body["param"] == "index"


async def test_a_failed_job_has_no_images(gateway: Gateway) -> None:
    url = f"/v1/images/{(await gateway.submit())['id']}/content"
    await gateway.fail(await gateway.claim())
    body = check_error(await gateway.client.get(url))
    assert (body["status"], body["code"]) == (409, "image_failed")
    assert body["detail"] == "the job is failed: it has no images"


async def test_a_canceled_job_has_no_images(gateway: Gateway) -> None:
    job_id = (await gateway.submit())["id"]
    await gateway.client.post(f"/v1/images/{job_id}/cancel")
    body = check_error(await gateway.client.get(f"/v1/images/{job_id}/content"))
    assert (body["status"], body["code"]) == (409, "image_canceled")


async def test_bytes_that_are_gone_are_gone(gateway: Gateway) -> None:
    url = await completed(gateway)
    body = check_error(await gateway.client.get(url))
    assert (body["status"], body["code"]) == (410, "image_gone")


@pytest.mark.parametrize("damaged", [b"", b"picturf", b"picture and more"])
async def test_damaged_bytes_are_never_served(gateway: Gateway, tmp_path: Path, damaged: bytes) -> None:
    url = await completed(gateway, b"picture")
    [file] = (tmp_path / "images").rglob("0.png")
    file.write_bytes(damaged)
    body = check_error(await gateway.client.get(url))
    assert (body["status"], body["code"]) == (410, "image_gone")


async def test_a_store_that_cannot_be_read_is_not_a_picture_that_is_gone(gateway: Gateway, tmp_path: Path) -> None:
    url = await completed(gateway, b"picture")
    [file] = (tmp_path / "images").rglob("0.png")
    file.unlink()
    file.symlink_to(file)
    body = check_error(await gateway.client.get(url))
    assert (body["status"], body["code"]) == (503, "storage_unavailable")
    assert str(tmp_path) not in body["detail"]
    file.unlink()
    file.write_bytes(b"picture")
    assert (await gateway.client.get(url)).content == b"picture"


async def test_a_head_says_all_but_the_bytes(gateway: Gateway) -> None:
    job_id = (await gateway.submit())["id"]
    url = f"/v1/images/{job_id}/content"
    waiting = await gateway.client.head(url)
    assert (waiting.status_code, waiting.headers["retry-after"]) == (202, "1")
    await gateway.complete(await gateway.claim(), b"picture")
    head, got = await gateway.client.head(url), await gateway.client.get(url)
    assert (head.status_code, head.content, got.content) == (200, b"", b"picture")
    for name in ("etag", "content-type", "content-length", "cache-control"):
        assert head.headers[name] == got.headers[name]
    known = await gateway.client.head(url, headers={"if-none-match": head.headers["etag"]})
    assert known.status_code == 304
    assert (await gateway.client.head(url, params={"index": 1})).status_code == 404
