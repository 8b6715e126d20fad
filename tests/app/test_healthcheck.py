"""`python -m app.healthcheck`, as a container runs it."""

import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest


class Answers(BaseHTTPRequestHandler):
    """GET /503 answers 503, and so on."""

    def do_GET(self) -> None:
        self.send_response(int(self.path.removeprefix("/")))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def checked(url: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "app.healthcheck", url]
    # The proxy must not be asked.
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={"http_proxy": "http://127.0.0.1:1"}
    )
    return done.returncode, done.stderr


def test_an_answer_is_health(url: str) -> None:
    assert checked(f"{url}/200") == (0, "")


def test_a_refusal_is_none(url: str) -> None:
    assert checked(f"{url}/503") == (1, f"{url}/503: HTTP Error 503: Service Unavailable\n")


def test_nobody_there_is_none(url: str) -> None:
    code, said = checked("http://127.0.0.1:1/livez")
    assert code == 1
    assert "refused" in said
