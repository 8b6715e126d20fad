"""A server that speaks S3, for tests: moto's, as a process of its own."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

BUCKET = "pictures"


@contextmanager
def s3_serving() -> Iterator[dict[str, str]]:
    """Serve one empty bucket; give the environment by which obstore finds it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _make_bucket(url)
        yield {
            "AWS_ENDPOINT_URL": url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "a key",
            "AWS_SECRET_ACCESS_KEY": "a secret",
        }
    finally:
        server.terminate()
        server.wait(10)


def _make_bucket(url: str) -> None:
    give_up_s = time.monotonic() + 60
    with httpx.Client(trust_env=False) as client:
        while True:
            try:
                client.put(f"{url}/{BUCKET}").raise_for_status()
            except httpx.TransportError:
                if time.monotonic() > give_up_s:
                    raise
                time.sleep(0.1)
            else:
                return
