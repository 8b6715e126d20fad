"""Hostile input, entry by entry: refused with its documented code, and nothing else said or done.

Bodies that are no submission are in test_bad_bodies.py, wrong values in test_bad_requests.py, odd HTTP in
test_process.py, signed addresses and keys in access/, what webhooks connect to in webhooks/.
"""

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from redis.asyncio import Redis

from tests.app.gateway import ANY_JOB, Gateway, check_error, running, view
from tests.app.test_process import COMMAND, speak, started
from tests.app.webhooks.test_target import PRIVATE, TRICKS, literal

# What is unwritable is refused; what is merely odd is kept as it is, and given back as it was.
UNWRITABLE = {"NUL": "a\0b", "high half": "a\ud83d", "low half": "\ude00b", "halves in the wrong order": "\ude00\ud83d"}
ODD = {
    "line breaks": "a\r\nSet-Cookie: a=b\r\n\r\n<script>",
    "escape codes": "\x1b[2J\x1b]0;title\x07",
    "right to left": "\u202eevil\u202c \u2066x\u2069",
    "zero width": "a\u200b\u200d\ufeffb",
    "private use": "\ue000\U0010fffd",
    "no characters": "\ufffe\uffff\U0001ffff",
    "combining": "e" + "\u0301" * 500,
    "C1": "\x80\x9f\x85",
    "format": "{0} {message} %s %n ${jndi:ldap://x} {{7*7}}",
    "markup": "<img src=x onerror=alert(1)>'\";--",
    "Lua": "'); redis.call('FLUSHALL'); --",
    "emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
}

# Ids of no job. Some reach the route as an id, some are no address that there is: there is nothing at any of them.
IDS = [
    "%2e",
    "%2e%2e",
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e%2f",
    "..%5c..%5c",
    "img_%00",
    "img_%0d%0aset-cookie:%20a=b",
    "img_*",
    "img_?",
    "img_[0-9]",
    "{q}",
    "*",
    "%F0%9F%98%80",
    "%ED%A0%80",
    "%FF%FE",
    "-1",
    "0",
    "null",
    "undefined",
    "__proto__",
    "';DROP TABLE jobs;--",
    "job:img_0",
    "darkroom:{q}:url-secret",
    "img_" + "0" * 31,
    "img_" + "0" * 33,
    "img_" + "A" * 32,
    "IMG_" + "0" * 32,
    " img_" + "0" * 32,
    "x" * 5_000,
]

# Names of no tenant: some would make another's key of the queue's server.
TENANTS = [
    "",
    " ",
    "default:keys",
    "default:sdapi_model",
    "default\n",
    "Default",
    "-default",
    "a/b",
    "*",
    "{q}",
    "..",
    "\0",
    "é",
    "x" * 64,
    "x" * 5_000,
]

HEADERS: list[tuple[str, bytes]] = [
    ("x-request-id", b"a\r\nset-cookie: a=b"),
    ("x-request-id", b"<script>alert(1)</script>"),
    ("x-request-id", b"x" * 10_000),
    ("if-none-match", b'W/"' + b"x" * 10_000),
    ("authorization", b"Bearer " + b"\x00" * 100),
    ("accept", b"text/html;q=99999"),
    ("x-forwarded-for", b"127.0.0.1, ::1"),
    ("x-forwarded-host", b"evil.test"),
    ("x-original-url", b"/metrics"),
    ("x-http-method-override", b"DELETE"),
    ("range", b"bytes=0-999999999999,1-1" + b",1-1" * 1_000),
    ("cookie", b"session=" + b"a" * 8_000),
    ("transfer-encoding", b"gzip, chunked"),
    ("content-type", b"application/json; charset=\xff"),
]


@pytest.fixture
async def telling(no_darkroom_environment: None, valkey: Redis, valkey_url: str) -> AsyncIterator[Gateway]:
    async with running(valkey_url, webhooks=True) as gateway:
        yield gateway


async def test_no_webhook_goes_where_it_should_not(telling: Gateway, valkey: Redis) -> None:
    said = set()
    for url in [*TRICKS, *(f"https://{literal(address)}/" for address in PRIVATE), "https://" + "a" * 100_000]:
        body = check_error(await telling.post({"prompt": "a ring", "webhook_url": url}))
        assert (body["status"], body["code"], body["param"]) == (422, "invalid_webhook_url", "webhook_url"), url
        said.add(re.sub(r"\d+ is not", "N is not", body["detail"]))
    assert len(said) <= 7  # none of them holds the URL, or what is to be found there
    assert not await valkey.exists(ANY_JOB)


@pytest.mark.parametrize("text", UNWRITABLE.values(), ids=UNWRITABLE)
async def test_what_cannot_be_written_is_refused(gateway: Gateway, valkey: Redis, text: str) -> None:
    good: dict[str, Any] = {"prompt": "a ring", "model": "tiny-sd3"}
    for fields in (
        {"prompt": text},
        {"negative_prompt": text},
        {"metadata": {"a": text}},
        {"metadata": {text: "a"}},
    ):
        body = check_error(await gateway.post(good | fields))
        assert (body["status"], body["code"]) == (422, f"invalid_{next(iter(fields))}")
    for name in ("model", "size", "output_format", "priority", text):
        assert (await gateway.post(good | {name: text})).status_code in (404, 422)
    assert not await valkey.exists(ANY_JOB)


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
async def test_what_is_only_odd_comes_back_as_it_was(gateway: Gateway, text: str) -> None:
    answer = await gateway.post({"prompt": text, "negative_prompt": text, "metadata": {"a": text, text[:64]: "b"}})
    assert answer.status_code == 202
    assert "set-cookie" not in answer.headers
    job = view(answer)
    for seen in (job, await gateway.read(job["id"])):
        assert seen["parameters"]["prompt"] == seen["parameters"]["negative_prompt"] == text
        assert seen["metadata"] == {"a": text, text[:64]: "b"}


@pytest.mark.parametrize("metadata", [{"x" * 65: "a"}, {"": "a"}, {"a": "x" * 513}, {str(n): "" for n in range(17)}])
async def test_metadata_is_bounded(gateway: Gateway, metadata: dict[str, str]) -> None:
    body = check_error(await gateway.post({"prompt": "a ring", "metadata": metadata}))
    assert (body["status"], body["code"]) == (422, "invalid_metadata")


@pytest.mark.parametrize("job_id", IDS)
async def test_an_id_leads_nowhere_but_to_its_job(gateway: Gateway, valkey: Redis, job_id: str) -> None:
    await gateway.submit()
    before = {key: await valkey.dump(key) for key in await valkey.keys("*")}
    raw = quote(job_id, safe="%.")
    for method, end in (("GET", ""), ("GET", "/content"), ("GET", "/preview"), ("POST", "/cancel")):
        url = httpx.URL("http://gateway").copy_with(raw_path=f"/v1/images/{raw}{end}".encode())
        answer = await gateway.client.request(method, url)
        assert answer.status_code in (404, 405), (method, end)
        assert check_error(answer)["code"] in ("image_not_found", "not_found", "method_not_allowed")
        assert "set-cookie" not in answer.headers
    assert {key: await valkey.dump(key) for key in await valkey.keys("*")} == before


@pytest.mark.parametrize("tenant", TENANTS)
async def test_a_tenant_is_named_as_tenants_are(gateway: Gateway, valkey: Redis, tenant: str) -> None:
    """Here anybody is an admin, who may name one."""
    job_id = (await gateway.submit())["id"]
    ring = {"prompt": "a ring"}
    for method, path, body in (
        ("POST", "/v1/images", ring),
        ("GET", "/v1/images", None),
        ("GET", f"/v1/images/{job_id}", None),
        ("GET", f"/v1/images/{job_id}/content", None),
        ("GET", f"/v1/images/{job_id}/events", None),
        ("POST", f"/v1/images/{job_id}/cancel", None),
        ("DELETE", f"/v1/images/{job_id}", None),
        ("POST", "/v1/images/generations", ring),
        ("POST", "/hf/tiny-sd3", {"inputs": "a ring"}),
        ("POST", "/sdapi/v1/options", {"sd_model_checkpoint": "tiny-sd3"}),
        ("POST", "/sdapi/v1/interrupt", None),
    ):
        problem = check_error(await gateway.client.request(method, path, params={"tenant": tenant}, json=body))
        assert (problem["status"], problem["code"], problem["param"]) == (422, "invalid_tenant", "tenant"), path
    assert (await gateway.read(job_id))["status"] == "queued"
    assert await gateway.list_ids() == [job_id]
    kept = [str(key) for key in await valkey.keys("*")]
    assert not [key for key in kept if tenant.strip() and key.endswith(f":{tenant}")]


@pytest.mark.parametrize(("name", "value"), HEADERS)
async def test_a_header_says_nothing_that_it_should_not(gateway: Gateway, name: str, value: bytes) -> None:
    for method, path in (("GET", "/v1/images"), ("POST", "/v1/images"), ("GET", "/nothing")):
        headers = httpx.Headers([(name.encode(), value), (b"x-marker", b"1")])
        answer = await gateway.client.request(method, path, headers=headers)
        assert answer.status_code in (200, 401, 404, 422)
        assert "evil.test" not in answer.text
        assert "set-cookie" not in answer.headers


async def test_a_body_that_trickles_is_given_up(no_darkroom_environment: None, valkey: Redis, valkey_url: str) -> None:
    async def trickle() -> AsyncIterator[bytes]:
        yield b'{"prompt": "'
        for _ in range(100):
            await asyncio.sleep(0.05)
            yield b"a"

    async with running(valkey_url, body_timeout_s=0.5) as gateway:
        headers = {"content-type": "application/json"}
        answer = await gateway.client.post("/v1/images", content=trickle(), headers=headers)
        assert (answer.status_code, check_error(answer)["code"]) == (408, "body_timeout")
        assert (await gateway.post({"prompt": "a ring"})).status_code == 202
    assert len(await valkey.keys("*job:*")) == 1


async def test_the_real_server_hangs_up_on_a_body_that_does_not_come(valkey_url: str, tmp_path: Path) -> None:
    with started(COMMAND, tmp_path, valkey_url, body_timeout_s="0.5") as address:
        head = b"POST /v1/images HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
        # `speak` reads until the server hangs up, though this client asked to be kept.
        answer = await speak(address, head + b'{"prompt": ')
        assert (answer.status_code, check_error(answer)["code"]) == (408, "body_timeout")
        with socket.create_connection(address, timeout=10) as client:
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.recv(1_024).startswith(b"HTTP/1.1 200 ")
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_the_corpus_is_as_large_as_it_says() -> None:
    assert (len(TRICKS), len(PRIVATE), len(IDS), len(TENANTS)) == (75, 38, 29, 15)
    assert (len(HEADERS), len(UNWRITABLE), len(ODD)) == (14, 4, 12)
