"""`darkroom keys`, on a real server: made, listed, revoked, and what it says instead of a traceback."""

from pathlib import Path

import httpx
import pytest
import redis
from standardwebhooks import Webhook
from typer.testing import CliRunner, Result

from app.access.key import split_key
from app.cli.image_client import ImageClient
from app.cli.keys import keys_command

pytestmark = pytest.mark.usefixtures("no_darkroom_environment")


@pytest.fixture
def server(no_darkroom_environment: None, valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
    monkeypatch.setenv("DARKROOM_REDIS_URL", valkey_url)


def keys(*words: str) -> Result:
    return CliRunner().invoke(keys_command(), words)


@pytest.mark.usefixtures("server")
def test_a_key_is_shown_once_then_listed_without_its_secret_then_revoked() -> None:
    made = keys("create", "--tenant", "alice", "--name", "laptop", "--role", "read", "--max-priority", "low")
    assert made.exit_code == 0, made.stderr
    parts = split_key(made.stdout.strip())
    assert parts is not None
    key_id, secret = parts
    listed = keys("list").stdout
    assert secret not in listed
    assert listed.startswith(f"{key_id}  alice  read  made ")
    assert "active  laptop  priority up to low" in listed
    assert keys("list", "--tenant", "bob").stdout == ""
    for word in (key_id, made.stdout.strip()):
        assert keys("revoke", word).stdout == "revoked; within 3 seconds it opens nothing\n"
    assert "revoked 2" in keys("list").stdout


@pytest.mark.usefixtures("server")
def test_a_key_may_submit_and_read_unless_told_otherwise() -> None:
    keys("create", "--requests-per-minute", "5", "--megapixel-steps-per-hour", "7")
    assert "  default  read,submit  " in keys("list").stdout
    assert "5 requests a minute  7 megapixel-steps an hour" in keys("list").stdout


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["create", "--tenant", "Alice"], "darkroom: --tenant: write it in a-z"),
        (["create", "--name", "x" * 65], "darkroom: --name: String should have at most 64 characters"),
        (["revoke", "0123456789abcdef"], "darkroom: There is no key 0123456789abcdef.\n"),
        (["revoke", "*"], "darkroom: There is no key *.\n"),
        (["create", "--role", "paint"], "Invalid value for '--role'"),
        (["create", "--requests-per-minute", "0"], "Invalid value for '--requests-per-minute'"),
    ],
)
def test_what_is_wrong_is_said(words: list[str], said: str) -> None:
    done = keys(*words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert keys("list").stdout == ""


@pytest.mark.usefixtures("server")
def test_a_third_active_key_is_refused() -> None:
    keys("create", "--tenant", "alice")
    keys("create", "--tenant", "alice")
    third = keys("create", "--tenant", "alice")
    assert (third.exit_code, third.stdout) == (2, "")
    assert "alice has 2 active keys; revoke one of them first." in third.stderr


@pytest.mark.usefixtures("server")
def test_a_webhook_secret_is_a_tenants_own_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob, again = (
        keys("webhook-secret", "--tenant", tenant).stdout.strip() for tenant in ("alice", "bob", "alice")
    )
    assert alice == again != bob
    assert alice.startswith("whsec_")
    Webhook(alice)
    monkeypatch.setenv("DARKROOM_URL_SECRET", "x" * 32)
    assert keys("webhook-secret", "--tenant", "alice").stdout.strip() != alice


def test_no_server_is_one_line(tmp_path: Path) -> None:
    for words, said in (
        (["--data-dir", str(tmp_path)], "where `darkroom up` would be running"),
        (["--redis-url", "unix:///nowhere/valkey.sock"], "DARKROOM_REDIS_URL"),
        (["--redis-url", "http://:secret@host"], "write it as redis://"),
    ):
        done = keys("list", *words)
        assert done.exit_code == 1
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
        assert "secret" not in done.stderr


async def test_generate_sends_its_key() -> None:
    async with ImageClient("http://gateway", api_key="dk_a.b") as client:
        client._http._transport = httpx.MockTransport(
            lambda request: httpx.Response(200, text=request.headers["authorization"])
        )
        assert (await client._send("GET", "/")).text == "Bearer dk_a.b"
