"""One attempt, against real receivers: to the very address that was looked at, with the name's own certificate."""

import ssl
from datetime import UTC, datetime

import pytest
import trustme
from standardwebhooks import Webhook

from app.webhooks.sender import Outcome, Sender, signed_headers
from tests.app.webhooks.receiver import OK, receiving

SECRET = b"k" * 32
BODY = '{"type": "image.completed", "prompt": "é"}'


class Names:
    """A resolver that answers in turn, the last answer for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def certified(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


async def send(sender: Sender, url: str) -> Outcome:
    try:
        return await sender.send(url, "msg_1", BODY, SECRET)
    finally:
        await sender.close()


async def test_a_message_arrives_signed_over_tls_by_its_name(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    names = Names(["127.0.0.1"])
    async with receiving(certified(authority, "hooks.test")) as receiver:
        sender = Sender(names, allow_private=True, tls=trusting)
        url = f"https://hooks.test:{receiver.port}/a/b?c=%2F"
        assert await send(sender, url) is Outcome.DELIVERED
        [(headers, body)] = receiver.seen
        assert headers[""] == "POST /a/b?c=%2F HTTP/1.1"
        assert headers["host"] == f"hooks.test:{receiver.port}"
        assert headers["content-type"] == "application/json"
        assert Webhook(SECRET).verify(body, headers) == {"type": "image.completed", "prompt": "é"}
        assert names.asked == ["hooks.test"]


async def test_anothers_certificate_is_not_taken(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    async with receiving(certified(authority, "other.test")) as receiver:
        sender = Sender(Names(["127.0.0.1"]), allow_private=True, tls=trusting)
        assert await send(sender, f"https://hooks.test:{receiver.port}/") is Outcome.FAILED
        assert receiver.seen == []
    async with receiving(certified(authority, "hooks.test")) as receiver:
        sender = Sender(Names(["127.0.0.1"]), allow_private=True)  # which trusts public authorities only
        assert await send(sender, f"https://hooks.test:{receiver.port}/") is Outcome.FAILED
        assert receiver.seen == []


async def test_a_name_that_moves_in_between_changes_nothing() -> None:
    """Rebinding: were it looked up again for the connection, it would be found on this machine."""
    names = Names(["192.0.2.1"], ["127.0.0.1"])
    async with receiving() as receiver:
        sender = Sender(names, allow_private=True, timeout_s=0.5)
        assert await send(sender, f"http://hooks.test:{receiver.port}/") is Outcome.FAILED
        assert receiver.seen == []
    assert names.asked == ["hooks.test"]


async def test_a_name_of_a_closed_network_is_not_connected_to() -> None:
    async with receiving() as receiver:
        sender = Sender(Names(["127.0.0.1"]), allow_private=False)
        assert await send(sender, f"https://hooks.test:{receiver.port}/") is Outcome.REFUSED
        sender = Sender(Names(["127.0.0.1"]), allow_private=False)
        assert await send(sender, f"http://127.0.0.1:{receiver.port}/") is Outcome.REFUSED
        assert receiver.seen == []


async def test_a_redirect_is_not_followed() -> None:
    async with receiving() as inner, receiving() as receiver:
        location = f"Location: http://127.0.0.1:{inner.port}/\r\n"
        for status in (301, 302, 303, 307, 308):
            receiver.answers = [f"HTTP/1.1 {status} Moved\r\n{location}Content-Length: 0\r\n\r\n".encode()]
            sender = Sender(Names(["127.0.0.1"]), allow_private=True)
            assert await send(sender, f"http://hooks.test:{receiver.port}/") is Outcome.FAILED
        assert inner.seen == []


async def test_the_environments_proxy_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiving() as proxy, receiving() as receiver:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        sender = Sender(Names(["127.0.0.1"]), allow_private=True)
        assert await send(sender, f"http://hooks.test:{receiver.port}/") is Outcome.DELIVERED
        assert proxy.seen == []


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (OK, Outcome.DELIVERED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", Outcome.DELIVERED),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"ffff\r\n" * 1_000, Outcome.DELIVERED),
        (b"HTTP/1.1 410 Gone\r\n\r\n", Outcome.REFUSED),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", Outcome.FAILED),
        (b"HTTP/1.1 500 Oh\r\n\r\n", Outcome.FAILED),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2_000_000, Outcome.FAILED),
        (b"\x00\xff\xfe", Outcome.FAILED),
        (b"", Outcome.FAILED),
        (None, Outcome.FAILED),
    ],
    ids=["204", "endless", "chunked", "410", "404", "500", "huge header", "noise", "nothing", "silence"],
)
async def test_whatever_it_answers(answer: bytes | None, outcome: Outcome) -> None:
    async with receiving() as receiver:
        receiver.answers = [answer]
        sender = Sender(Names(["127.0.0.1"]), allow_private=True, timeout_s=1.0)
        assert await send(sender, f"http://hooks.test:{receiver.port}/") is outcome


async def test_nobody_there_and_no_such_name() -> None:
    async def unknown(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    assert await send(Sender(Names(["127.0.0.1"]), allow_private=True), "http://hooks.test:1/") is Outcome.FAILED
    assert await send(Sender(unknown, allow_private=True), "http://hooks.test/") is Outcome.FAILED


def test_a_signature_is_the_standards() -> None:
    now = datetime.now(UTC)
    headers = signed_headers("msg_1", BODY, SECRET, now)
    assert Webhook(SECRET).verify(BODY, headers)
    for wrong in ({"webhook-id": "msg_2"}, {"webhook-timestamp": str(int(now.timestamp()) + 1)}):
        with pytest.raises(Exception, match="No matching signature"):
            Webhook(SECRET).verify(BODY, headers | wrong)
