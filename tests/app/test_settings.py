"""Settings: what is refused, in which words, and what stands when nothing is said."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from app.settings import GatewaySettings

pytestmark = pytest.mark.usefixtures("no_darkroom_environment")


def test_nothing_said() -> None:
    settings = GatewaySettings()
    assert (settings.host, settings.port, settings.allow_open_network) == ("127.0.0.1", 8000, False)
    assert settings.models == ()
    assert not settings.always_asks_for_keys


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_loopback_is_open(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("DARKROOM_HOST", host)
    assert not GatewaySettings().always_asks_for_keys
    monkeypatch.setenv("DARKROOM_REQUIRE_KEYS", "true")
    assert GatewaySettings().always_asks_for_keys


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "", "*", "192.168.1.5", "10.0.0.1", "169.254.1.1", "localhost.example.com", "127.0.0.1.nip.io"],  # noqa: S104
)
def test_any_other_address_asks_for_keys_unless_told(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("DARKROOM_HOST", host)
    assert GatewaySettings().always_asks_for_keys
    monkeypatch.setenv("DARKROOM_ALLOW_OPEN_NETWORK", "true")
    assert not GatewaySettings().always_asks_for_keys


@pytest.mark.parametrize(
    ("given", "models"),
    [
        ("", ()),
        (" , ", ()),
        ("tiny-sd3", ("tiny-sd3",)),
        (" tiny-sd3 ,flux-dev=/weights/flux,, ", ("tiny-sd3", "flux-dev")),
        ("=/weights", ()),
    ],
)
def test_models_are_split_at_commas_and_folders_dropped(
    monkeypatch: pytest.MonkeyPatch, given: str, models: tuple[str, ...]
) -> None:
    monkeypatch.setenv("DARKROOM_MODELS", given)
    assert GatewaySettings().models == models


def test_folders_given_with_models_are_where_their_tokenizers_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_MODELS", " tiny-sd3 ,flux-dev=/weights/flux, flux-schnell = /a=b ,, ")
    assert GatewaySettings().model_folders == {
        "flux-dev": Path("/weights/flux"),
        "flux-schnell": Path("/a=b"),
    }


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("PORT", "http", "valid integer"),
        ("PORT", "-1", "greater than or equal to 0"),
        ("PORT", "65536", "less than or equal to 65535"),
        ("MAX_BODY_BYTES", "0", "greater than 0"),
        ("MAX_PROMPT_CHARS", "0", "greater than 0"),
        ("MAX_IMAGES_PER_REQUEST", "0", "greater than or equal to 1"),
        ("MAX_QUEUED", "0", "greater than or equal to 1"),
        ("ALLOW_OPEN_NETWORK", "perhaps", "valid boolean"),
        ("REQUIRE_KEYS", "perhaps", "valid boolean"),
        ("URL_SECRET", "too short", "at least 32"),
        ("URL_LIFETIME_S", "0", "greater than or equal to 1"),
        ("REQUESTS_PER_MINUTE", "0", "greater than or equal to 1"),
        ("MEGAPIXEL_STEPS_PER_HOUR", "0", "greater than or equal to 1"),
        ("MAX_REQUEST_MEGAPIXEL_STEPS", "0", "greater than or equal to 1"),
        ("BODY_TIMEOUT_S", "0", "greater than 0"),
        ("ADMIN_PORT", "65536", "less than or equal to 65535"),
        ("LOG_LEVEL", "loud", "'debug', 'info', 'warning', 'error' or 'critical'"),
        ("PUBLIC_BASE_URL", "example.com", "'example.com' does not start with http:// or https://"),
        ("REDIS_URL", "localhost:6379", "write it as redis://HOST:PORT/DB"),
        ("REDIS_URL", "", "write it as redis://HOST:PORT/DB"),
        ("REDIS_URL", "http://localhost", "write it as redis://HOST:PORT/DB"),
        ("REDIS_URL", "redis://localhost:port", "write it as redis://HOST:PORT/DB"),
        ("REDIS_URL", "redis://localhost?db=one", "write it as redis://HOST:PORT/DB"),
        ("REDIS_URL", "redis://localhost?colour=red", "write it as redis://HOST:PORT/DB"),
    ],
)
def test_a_bad_value_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, given: str, said: str) -> None:
    monkeypatch.setenv(f"DARKROOM_{name}", given)
    with pytest.raises(ValidationError) as caught:
        GatewaySettings()
    [problem] = caught.value.errors()
    assert problem["loc"] == (name.lower(),)
    assert said in problem["msg"]


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("LOG_LEVEL", "WARNING"),
        ("PUBLIC_BASE_URL", "https://example.com/darkroom"),
        ("PUBLIC_BASE_URL", ""),
        ("REDIS_URL", "unix:///tmp/valkey.sock?db=2"),
        ("REDIS_URL", "rediss://user:password@[::1]:6380/1?ssl_cert_reqs=none"),
    ],
)
def test_good_values(monkeypatch: pytest.MonkeyPatch, name: str, given: str) -> None:
    monkeypatch.setenv(f"DARKROOM_{name}", given)
    value = getattr(GatewaySettings(), name.lower())
    assert value == (given.lower() if name == "LOG_LEVEL" else given)
