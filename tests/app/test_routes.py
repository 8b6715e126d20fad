"""Addresses, methods and headers: whatever comes, the answer keeps the rules."""

import re

import httpx
import pytest
from fastapi import FastAPI
from redis.asyncio import Redis

from tests.app.gateway import ANY_JOB, Gateway, check_error, view

JOB = "/v1/images/img_" + "0" * 32
NOWHERE = [
    "/",
    "/v1",
    "/v1/",
    "/v1/image",
    "/V1/images",
    "/v1/images/",
    "//v1/images",
    "/v1/images//content",
    f"{JOB}/",
    f"{JOB}/nothing",
    f"{JOB}/content/0",
    "/v1/images/..%2F..%2Fetc%2Fpasswd",
    "/%00",
    "/%ED%A0%80",
    "/%FF",
    "/{message}",
    "/%0d%0aset-cookie:%20a=b",
    "/" + "x" * 10_000,
    "/v1/models/",
    "/livez/",
    "/favicon.ico",
]
GOOD_REQUEST_IDS = ["a", "0f8fad5b-d9cb-469f-a165-70867728950e", "req_1.2-3", "x" * 128]
BAD_REQUEST_IDS = [
    "",
    " ",
    "a b",
    "x" * 129,
    "a\r\nset-cookie: a=b",
    "a\n",
    "a\0",
    "<script>",
    '"',
    "a,b",
    "\N{CAT FACE}",
    "../a",
    "%0a",
]
ODD_HOSTS = ["", "[", "[::1", "[::1]:x", "a b", "@", "a@b", "a:b", "a:99999999", "\xe9", "a/b?c=d#e", "\0", "x" * 5_000]
ODD_HEADERS = [
    ("accept", "text/html"),
    ("accept", "\xff"),
    ("accept-encoding", "nothing"),
    ("authorization", "Bearer x"),
    ("cookie", "a=b; c"),
    ("content-length", "-1"),
    ("content-length", "1e9"),
    ("content-length", "\xb2"),
    ("content-length", ""),
    ("content-encoding", "gzip"),
    ("if-none-match", "\xff"),
    ("if-modified-since", "yesterday"),
    ("range", "bytes=0-"),
    ("x-forwarded-for", "\xff"),
    ("x-http-method-override", "DELETE"),
    ("transfer-encoding", "gzip"),
    ("upgrade", "websocket"),
    ("prefer", "wait=forever"),
]


async def test_there_is_nothing_elsewhere(gateway: Gateway) -> None:
    for path in NOWHERE:
        url = httpx.URL("http://gateway", raw_path=path.encode())
        for method in ("GET", "POST", "DELETE", "BREW"):
            body = check_error(await gateway.client.request(method, url))
            assert (body["status"], body["code"], body["param"]) == (404, "not_found", None)
            assert body["detail"].startswith("there is nothing at /")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/images", "GET, POST"),
        (JOB, "DELETE, GET"),
        (f"{JOB}/content", "GET, HEAD"),
        (f"{JOB}/preview", "GET"),
        (f"{JOB}/events", "GET"),
        (f"{JOB}/cancel", "POST"),
        ("/v1/models", "GET"),
        ("/livez", "GET"),
        ("/readyz", "GET"),
        ("/metrics", "GET"),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(gateway: Gateway, valkey: Redis, path: str, allowed: str) -> None:
    methods = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"}
    for method in methods - set(allowed.split(", ")):
        response = await gateway.client.request(method, path)
        assert response.status_code == 405
        assert response.headers["allow"] == allowed
        if method != "HEAD":
            body = check_error(response)
            assert body["code"] == "method_not_allowed"
            assert body["detail"] == f"{method} is not for this address"
    assert not await valkey.exists(ANY_JOB)


async def test_the_documents_pages_are_only_read(gateway: Gateway) -> None:
    for path in ("/openapi.json", "/docs"):
        assert (await gateway.client.get(path)).status_code == 200
        response = await gateway.client.post(path)
        check_error(response)
        assert (response.status_code, set(response.headers["allow"].split(", "))) == (405, {"GET", "HEAD"})


async def test_a_clients_request_id_is_kept(gateway: Gateway) -> None:
    for given in GOOD_REQUEST_IDS:
        headers = {"x-request-id": given}
        assert (await gateway.client.get("/livez", headers=headers)).headers["x-request-id"] == given
        error = await gateway.client.get(JOB, headers=headers)
        assert error.headers["x-request-id"] == check_error(error)["request_id"] == given
        assert (await gateway.client.get("/nothing", headers=headers)).headers["x-request-id"] == given


async def test_a_request_id_that_is_none_is_replaced(gateway: Gateway) -> None:
    for given in BAD_REQUEST_IDS:
        response = await gateway.client.get(JOB, headers=httpx.Headers({b"x-request-id": given.encode()}))
        assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-request-id"])
        assert check_error(response)["request_id"] == response.headers["x-request-id"]
        assert "set-cookie" not in response.headers


async def test_every_request_has_an_id_of_its_own(gateway: Gateway) -> None:
    ids = {(await gateway.client.get("/livez")).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3


async def test_an_odd_host_breaks_nothing(gateway: Gateway) -> None:
    for host in ODD_HOSTS:
        headers = httpx.Headers({b"host": host.encode("latin-1"), b"content-type": b"application/json"})
        response = await gateway.client.post("/v1/images", content=b'{"prompt": "x"}', headers=headers)
        assert response.status_code == 202
        job_id = view(response)["id"]
        for path, status in ((f"/v1/images/{job_id}", 200), ("/v1/images", 200), ("/v1/images/", 404), ("/livez", 200)):
            assert (await gateway.client.get(path, headers=headers)).status_code == status


async def test_odd_headers_break_nothing(gateway: Gateway) -> None:
    for name, value in ODD_HEADERS:
        headers = httpx.Headers({name.encode(): value.encode("latin-1")})
        assert (await gateway.client.get("/livez", headers=headers)).status_code == 200
        assert (await gateway.client.get("/v1/images", headers=headers)).status_code == 200
        assert (await gateway.client.get(f"{JOB}/content", headers=headers)).status_code == 404


async def test_an_exception_is_told_to_the_log_and_not_to_the_client(gateway: Gateway) -> None:
    app: FastAPI = gateway.app

    @app.get("/broken")
    async def broken() -> None:
        raise ValueError("the password is secret")

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        response = await client.get("/broken", headers={"x-request-id": "request-7"})
    body = check_error(response)
    assert (body["status"], body["code"], body["request_id"]) == (500, "internal_error", "request-7")
    assert body["detail"] == "Something broke on our side; please report the request id."
    assert "secret" not in response.text
    assert 'code="500",method="GET",route="/broken"} 1.0' in (await gateway.client.get("/metrics")).text
