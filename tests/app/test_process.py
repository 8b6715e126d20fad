"""`python -m app`, the real process: how it refuses to start, and what its HTTP server does with odd bytes."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from app.__main__ import main
from tests.app.gateway import ANY_JOB, check_answer, check_error, view

COMMAND = [sys.executable, "-m", "app"]
MAX_BODY_BYTES = 262_144


def environment(**settings: str) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("DARKROOM_")}
    return plain | {f"DARKROOM_{name.upper()}": value for name, value in settings.items()}


@pytest.mark.parametrize(
    ("settings", "lines"),
    [
        ({"port": "http"}, ["gateway: DARKROOM_PORT: Input should be a valid integer, unable to parse"]),
        ({"log_level": "loud"}, ["gateway: DARKROOM_LOG_LEVEL: Input should be 'debug', 'info'"]),
        ({"models": "tiny-sd4"}, ["gateway: unknown model 'tiny-sd4'; known models: tiny-flux-schnell, "]),
        ({"store_url": "/data"}, ["gateway: cannot open the image store '/data': "]),
        ({"store_url": "ftp://host/a"}, ["gateway: cannot open the image store 'ftp://host/a': "]),
        ({"store_url": "file:///proc/nowhere"}, ["gateway: cannot open the image store 'file:///proc/nowhere': "]),
        ({"redis_url": "redis://:secret@host:port"}, ["gateway: DARKROOM_REDIS_URL: write it as redis://HOST:PORT/DB"]),
        ({"url_secret": "a secret"}, ["gateway: DARKROOM_URL_SECRET: Value should have at least 32 items"]),
        (
            {"port": "70000", "max_queued": "0"},
            ["gateway: DARKROOM_PORT: Input should be less", "gateway: DARKROOM_MAX_QUEUED: Input should be greater"],
        ),
    ],
)
def test_bad_settings_are_told_in_one_line_each(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    no_darkroom_environment: None,
    settings: dict[str, str],
    lines: list[str],
) -> None:
    monkeypatch.setenv("DARKROOM_STORE_URL", "memory://")
    for name, value in settings.items():
        monkeypatch.setenv(f"DARKROOM_{name.upper()}", value)
    assert main() == 2
    output = capsys.readouterr()
    told = output.err.splitlines()
    assert len(told) == len(lines)
    for line, start in zip(told, lines, strict=True):
        assert line.startswith(start)
    assert output.out == ""
    assert not re.search("secret|pydantic|Traceback", output.err)


def test_the_process_ends_with_2() -> None:
    ended = subprocess.run(COMMAND, env=environment(port="http"), capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("gateway: DARKROOM_PORT: ")
    assert ended.stderr.count("\n") == 1


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        settings = environment(port=port, store_url="memory://", redis_url="unix:///nowhere/valkey.sock")
        ended = subprocess.run(COMMAND, env=settings, capture_output=True, text=True, timeout=60)
    assert ended.returncode not in (0, 2)
    [error] = [line for line in ended.stderr.splitlines() if port in line]
    assert "address already in use" in error
    assert "Traceback" not in ended.stderr


@contextmanager
def started(command: list[str], folder: Path, redis_url: str, **more: str) -> Iterator[tuple[str, int]]:
    """Run a gateway's process; give its host and port. At the end it is told to end, and must."""
    log = folder / "log"
    settings = environment(port="0", store_url=f"file://{folder}/images", redis_url=redis_url, **more)
    with log.open("wb") as stderr, subprocess.Popen(command, env=settings, stderr=stderr) as process:
        try:
            yield "127.0.0.1", _port(log)
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) in (0, -signal.SIGTERM)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def address(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """The host and port of a process that all tests share; it must not have told of any exception at its end."""
    folder = tmp_path_factory.mktemp("gateway")
    with started(COMMAND, folder, valkey_url) as address:
        yield address
    assert "Traceback" not in (folder / "log").read_text()


def _port(log: Path) -> int:
    for _ in range(600):
        if said := re.search(r"running on http://127\.0\.0\.1:(\d+)", log.read_text()):
            return int(said[1])
        time.sleep(0.05)
    raise TimeoutError(log.read_text())


@pytest.fixture
async def client(address: tuple[str, int], valkey: Redis) -> AsyncIterator[httpx.AsyncClient]:
    url = f"http://{address[0]}:{address[1]}"
    async with httpx.AsyncClient(base_url=url, event_hooks={"response": [check_answer]}) as client:
        yield client


async def speak(address: tuple[str, int], request: bytes) -> httpx.Response:
    """Send bytes as they are, and read the answer until the server hangs up."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(request)
        await writer.drain()
        async with asyncio.timeout(10):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    status, *lines = head.split(b"\r\n")
    headers = [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    method = request.split(b" ")[0].decode("latin-1")
    return httpx.Response(
        int(status.split(b" ")[1]), headers=headers, content=body, request=httpx.Request(method, "http://gateway/")
    )


def body_of(size: int) -> bytes:
    return b'{"prompt": "a ring", "metadata": {}' + b" " * (size - 36) + b"}"


async def chunks(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 10_000):
        yield body[start : start + 10_000]


@pytest.mark.parametrize("chunked", [False, True], ids=["content-length", "chunked"])
async def test_a_body_may_be_as_long_as_the_limit_and_no_longer(
    client: httpx.AsyncClient, valkey: Redis, chunked: bool
) -> None:
    headers = {"content-type": "application/json"}
    for size, status in ((MAX_BODY_BYTES + 1, 413), (4 * MAX_BODY_BYTES, 413), (MAX_BODY_BYTES, 202)):
        assert not await valkey.exists(ANY_JOB)
        body = body_of(size)
        assert len(body) == size
        response = await client.post("/v1/images", content=chunks(body) if chunked else body, headers=headers)
        assert response.status_code == status
        if status == 413:
            error = check_error(response)
            assert error["code"] == "payload_too_large"
            assert error["detail"] == "The request body may hold at most 262144 bytes."
    assert (await client.get("/livez")).status_code == 200


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
async def test_a_body_that_is_said_to_be_too_long_is_not_waited_for(address: tuple[str, int], expect: bytes) -> None:
    head = b"POST /v1/images HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nConnection: close\r\n"
    response = await speak(address, head + expect + b"Content-Length: 999999999999\r\n\r\n")
    assert (response.status_code, check_error(response)["code"]) == (413, "payload_too_large")


async def test_an_endless_chunked_body_is_cut_off(address: tuple[str, int]) -> None:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(
        b"POST /v1/images HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    sent = 0
    async with asyncio.timeout(10):
        answer = asyncio.create_task(reader.readuntil(b"\r\n"))
        while not answer.done():
            writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0.001)
            sent += 0x10000
    writer.close()
    assert (await answer).startswith(b"HTTP/1.1 413 ")
    assert sent < 100 * MAX_BODY_BYTES


@pytest.mark.parametrize(
    "request_id", [b"", b"a b", b"<script>", b"\xff\xfe", b"x" * 200, b"a\tb", b"a\x0bset-cookie: a=b"]
)
async def test_a_request_id_cannot_write_headers(address: tuple[str, int], request_id: bytes) -> None:
    response = await speak(
        address, b"GET /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Request-Id: " + request_id + b"\r\n\r\n"
    )
    if response.status_code == 400:
        return  # refused by the HTTP parser before the gateway saw it
    assert response.status_code == 404
    assert re.fullmatch(r"[0-9a-f]{32}", check_error(response)["request_id"])
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize(
    "request_head",
    [
        b"BREW / HTTP/1.1\r\nHost: a\r\n",
        b"GET / HTTP/1.1\r\n",
        b"GET / HTTP/9.9\r\nHost: a\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n",
        b"GET /v1/images?\xff=\xfe HTTP/1.1\r\nHost: a\r\n",
        b"GET http://b/livez HTTP/1.1\r\nHost: a\r\n",
        b"GET /livez HTTP/1.1\r\nHost: [\r\n",
        b"GET /v1/images/ HTTP/1.1\r\nHost: [::1]:x\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n",
        b"POST /v1/images HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n",
        b"POST /v1/images HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999999\r\n",
        b"POST /v1/images HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n",
        b"POST /v1/images HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nX: \x00\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n",
    ],
)
async def test_odd_requests_do_not_hurt_the_server(
    address: tuple[str, int], client: httpx.AsyncClient, request_head: bytes
) -> None:
    response = await speak(address, request_head + b"Connection: close\r\n\r\n")
    assert response.status_code in (200, 400, 404)
    assert (await client.get("/livez")).status_code == 200


async def test_a_client_that_hangs_up_in_its_body_changes_nothing(
    address: tuple[str, int], client: httpx.AsyncClient, valkey: Redis
) -> None:
    _, writer = await asyncio.open_connection(*address)
    head = b"POST /v1/images HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n"
    writer.write(head + b'{"prompt": "x"')
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await client.get("/livez")).status_code == 200
    assert not await valkey.exists(ANY_JOB)


def test_a_client_that_stalls_does_not_keep_the_process_from_ending(valkey_url: str, tmp_path: Path) -> None:
    impatient = "import app.serving as serving, app.__main__ as gateway; serving._SHUTDOWN_S = 0.1; gateway.main()"
    head = b"POST /v1/images HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 15\r\n"
    with started([sys.executable, "-c", impatient], tmp_path, valkey_url) as address:
        client = socket.create_connection(address, timeout=10)
        client.sendall(head + b"Expect: 100-continue\r\n\r\n")
        assert client.recv(1024).startswith(b"HTTP/1.1 100 ")  # the gateway waits for the body now
    client.close()


async def test_a_job_through_the_real_server(client: httpx.AsyncClient, address: tuple[str, int]) -> None:
    response = await client.post("/v1/images", json={"prompt": "a ring"})
    url = view(response)["urls"]["self"]
    assert url.startswith(f"http://127.0.0.1:{address[1]}/v1/images/img_")
    assert response.headers["location"] == url
    assert view(await client.get(url))["status"] == "queued"
    assert view(await client.post(f"{url}/cancel"))["status"] == "canceled"
    assert (await client.head(url)).status_code == 405
