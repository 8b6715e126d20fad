"""How `darkroom up` starts, refuses to start, and ends."""

import os
import signal
import socket
from pathlib import Path

import httpx
import pytest
import redis

from app.cli.data_dir import DataDir
from app.cli.errors import DataDirError
from app.cli.stack import Stack, StackOptions
from tests.processes import all_gone, family, wait_until
from tests.system.up import MODEL, Up, run


def test_kill_9_leaves_nothing_behind(tmp_path: Path) -> None:
    up = Up(tmp_path / "data", "--workers", "2")
    try:
        up.wait_until_ready()
        pids = list(up.family())
        assert len(pids) == 8
        valkey = up.pid_of("valkey-server")
        os.kill(valkey, signal.SIGSTOP)
        up.send(signal.SIGKILL)
        up.wait(5)
        # As long as its Valkey may write, nobody else may use the folder.
        with pytest.raises(DataDirError, match="in use"):
            DataDir(up.data_dir).__enter__()
        os.kill(valkey, signal.SIGCONT)
        assert all_gone(pids, 16)
        with DataDir(up.data_dir):
            pass
    finally:
        up.end()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_can_be_stopped_while_it_starts(tmp_path: Path, signum: signal.Signals) -> None:
    up = Up(tmp_path / "data")
    try:
        assert wait_until(lambda: any("-m app" in command for command in up.family().values()), 10)
        pids = list(up.family())
        up.send(signum)
        assert up.wait(20) == 0
        assert all_gone(pids, 0)
        assert up.rest() == []
    finally:
        up.end()


def test_a_taken_port_is_named_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = run("up", "--port", str(port), "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 1
    assert f"Port {port} on 127.0.0.1 is in use" in done.stderr
    assert "--port" in done.stderr
    assert not (tmp_path / "data").exists()


def test_an_unknown_model_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    done = run("up", "--model", "tiny-flux", "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 2
    assert "unknown model 'tiny-flux'; known models: tiny-flux-schnell, tiny-flux-dev, tiny-sd3" in done.stderr
    assert not (tmp_path / "data").exists()


def test_what_the_gateway_refuses_reaches_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_URL_SECRET", "too short")
    done = run("up", "--port", "0", "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 1
    assert "gateway ended with exit code 2 before it was ready" in done.stderr
    assert "DARKROOM_URL_SECRET: " in done.stderr


def test_a_redis_that_does_not_answer_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_REDIS_URL", f"unix://{tmp_path}/nobody.sock")
    done = run("up", "--port", "0", "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 1
    assert "DARKROOM_REDIS_URL does not answer" in done.stderr
    assert not (tmp_path / "data" / "logs" / "valkey.log").exists()


def test_a_given_redis_and_store_are_used_and_left(
    tmp_path: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_REDIS_URL", valkey_url)
    monkeypatch.setenv("DARKROOM_STORE_URL", (tmp_path / "elsewhere").as_uri())
    with Stack(StackOptions(data_dir=tmp_path, models=(MODEL,), port=0), say=print) as stack:
        commands = family(os.getpid()).values()
        assert httpx.get(f"{stack.url}/readyz").json()["workers"] == 1
        assert not any(f"--dir {tmp_path}" in command for command in commands)
        assert (tmp_path / "elsewhere").is_dir()
    with redis.Redis.from_url(valkey_url) as client:
        assert client.ping()
    with pytest.raises(httpx.ConnectError):
        httpx.get(stack.url)
