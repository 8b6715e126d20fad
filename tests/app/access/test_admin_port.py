"""The admin port: metrics and docs there and nowhere else, in the same process, which still ends when told."""

import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from tests.app.test_process import COMMAND, environment

ADMIN_PATHS = ("/metrics", "/docs", "/openapi.json")


def ports(log: Path, process: subprocess.Popen[bytes]) -> list[int]:
    for _ in range(600):
        said = re.findall(r"running on http://127\.0\.0\.1:(\d+)", log.read_text())
        if len(said) == 2:
            return [int(port) for port in said]
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    raise TimeoutError(log.read_text())


def test_metrics_and_docs_move_and_both_ports_close(valkey_url: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    settings = environment(port="0", admin_port="0", store_url="memory://", redis_url=valkey_url, require_keys="true")
    with log.open("wb") as stderr, subprocess.Popen(COMMAND, env=settings, stderr=stderr) as process:
        try:
            found = {httpx.get(f"http://127.0.0.1:{port}/metrics").status_code: port for port in ports(log, process)}
            public, admin = (f"http://127.0.0.1:{found[status]}" for status in (401, 200))
            for path in ADMIN_PATHS:
                assert httpx.get(admin + path).status_code == 200, path
            # On the other one there is nothing more at these than anywhere else.
            assert httpx.get(public + "/docs").status_code == httpx.get(public + "/openapi.json").status_code == 404
            assert "/v1/images" in httpx.get(admin + "/openapi.json").json()["paths"]
            assert "darkroom_queue_up 1.0" in httpx.get(admin + "/metrics").text
            assert 'route="/livez"' in _after(public + "/livez", admin)
            answer = httpx.get(admin + "/v1/images")
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) in (0, -signal.SIGTERM)
        finally:
            process.kill()
    assert "Traceback" not in log.read_text()
    for url in (public, admin):
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)


def test_a_taken_port_is_named_in_few_words(valkey_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        settings = environment(port="0", admin_port=port, store_url="memory://", redis_url=valkey_url)
        ended = subprocess.run(COMMAND, env=settings, capture_output=True, text=True, timeout=60)
    assert ended.returncode not in (0, 2)
    assert "address already in use" in ended.stderr.lower()
    assert "Traceback" not in ended.stderr


def _after(url: str, admin: str) -> str:
    httpx.get(url)
    return httpx.get(admin + "/metrics").text
