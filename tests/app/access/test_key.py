"""What a key is, and what is kept of it."""

import pytest
from pydantic import ValidationError

from app.access.caller import holder
from app.access.key import KeyRecord, Role, digest, new_key, split_key
from app.jobs.schema import Priority


def record(secret: str = "secret", **changes: object) -> KeyRecord:  # noqa: S107
    fields = {"id": "0" * 16, "tenant": "alice", "sha256": digest(secret), "roles": {Role.READ}}
    return KeyRecord.model_validate(fields | changes)


def test_a_key_is_its_id_and_256_random_bits() -> None:
    made = [new_key() for _ in range(100)]
    assert len({secret for _, secret, _ in made}) == len({key_id for key_id, _, _ in made}) == 100
    for key_id, secret, text in made:
        assert split_key(text) == (key_id, secret)
        assert len(secret) == 43  # 32 bytes in base64, without padding


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dk_",
        "dk_0123456789abcdef",
        "dk_0123456789abcdef.",
        "dk_0123456789abcdef." + "a" * 42,
        "dk_0123456789abcdef." + "a" * 44,
        "dk_0123456789ABCDEF." + "a" * 43,
        "DK_0123456789abcdef." + "a" * 43,
        " dk_0123456789abcdef." + "a" * 43,
        "dk_0123456789abcdef." + "a" * 43 + "\n",
        "dk_0123456789abcdef." + "\xe9" * 43,
        "dk_../../../../../x." + "a" * 43,
        "sk-" + "a" * 60,
    ],
)
def test_what_is_not_written_like_a_key_is_none(text: str) -> None:
    assert split_key(text) is None


def test_only_its_own_secret_opens_and_only_until_it_is_revoked() -> None:
    assert record().opens_with("secret")
    assert not record().opens_with("secreT")
    assert not record().opens_with("")
    assert not record(revoked_ms=1).opens_with("secret")


@pytest.mark.parametrize("tenant", ["", "Alice", "a:b", "a b", "-a", "a\n", "é", "a" * 64, "../x", "{q}"])
def test_a_tenants_name_is_plain(tenant: str) -> None:
    with pytest.raises(ValidationError):
        record(tenant=tenant)


def test_admin_may_do_everything_and_others_what_they_are_for() -> None:
    assert [holder(record(roles={Role.ADMIN})).may(role) for role in Role] == [True, True, True]
    assert [holder(record(roles={Role.READ})).may(role) for role in Role] == [False, True, False]
    assert [holder(record(roles={Role.SUBMIT})).may(role) for role in Role] == [True, False, False]
    with pytest.raises(ValidationError):
        record(roles=set())


@pytest.mark.parametrize(
    ("most", "allowed"),
    [(Priority.LOW, [Priority.LOW]), (Priority.NORMAL, [Priority.LOW, Priority.NORMAL]), (Priority.HIGH, [*Priority])],
)
def test_priorities_up_to_the_keys_own(most: Priority, allowed: list[Priority]) -> None:
    caller = holder(record(max_priority=most))
    assert [priority for priority in Priority if caller.may_ask_for(priority)] == allowed
