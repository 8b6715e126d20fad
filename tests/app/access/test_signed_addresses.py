"""Addresses that open without a key: one image of one job, until a time, and nothing else."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from redis.asyncio import Redis

from app.access.key import Role
from app.access.key_store import KeyStore
from app.access.signature import SignedAddress, expiry_s
from tests.app.access.keys import make_key
from tests.app.gateway import Gateway, check_error, running, view

SECRET = "s" * 32
PICTURES = (b"first", b"second")
ADDRESS = SignedAddress(tenant="alice", job_id="img_1", kind="content", index=0, expires_s=1_000)


def test_a_signature_is_of_one_thing_only() -> None:
    signature = ADDRESS.signature(b"secret")
    assert ADDRESS.holds(signature, b"secret", 999.9)
    others = [
        SignedAddress("bob", "img_1", "content", 0, 1_000),
        SignedAddress("alice", "img_2", "content", 0, 1_000),
        SignedAddress("alice", "img_1", "preview", 0, 1_000),
        SignedAddress("alice", "img_1", "content", 1, 1_000),
        SignedAddress("alice", "img_1", "content", 0, 1_001),
        SignedAddress("alice\nimg_1", "content", "content", 0, 1_000),
        SignedAddress("alice", "img_1\ncontent", "content", 0, 1_000),
        SignedAddress("alice\ud800", "img_1", "content", 0, 1_000),
    ]
    assert not any(other.holds(signature, b"secret", 0) for other in others)
    assert not ADDRESS.holds(signature, b"another", 0)
    assert not ADDRESS.holds(signature, b"secret", 1_000)
    for wrong in ("", "0" * 64, signature.upper(), signature[:-1], signature + "0", "\ud800", "é" * 64):
        assert not ADDRESS.holds(wrong, b"secret", 0)


def test_an_address_stays_the_same_for_a_lifetime_and_lasts_one_or_two() -> None:
    given = {now_s: expiry_s(now_s, 60) for now_s in range(600, 720)}
    assert len(set(given.values())) == 2
    assert all(60 < expires_s - now_s <= 120 for now_s, expires_s in given.items())


class Lab:
    def __init__(self, gateway: Gateway, alice: str, bob: str) -> None:
        self.gateway = gateway
        self.alice = {"authorization": f"Bearer {alice}"}
        self.bob = {"authorization": f"Bearer {bob}"}

    async def drawn(self) -> dict[str, Any]:
        """A completed job of alice's with two pictures."""
        fields = {"prompt": "a ring", "model": "tiny-sd3", "n": 2}
        job = view(await self.gateway.client.post("/v1/images", json=fields, headers=self.alice))
        await self.gateway.complete(await self.gateway.claim(token=job["id"]), *PICTURES)
        return await self.read(job["id"])

    async def read(self, job_id: str) -> dict[str, Any]:
        return view(await self.gateway.client.get(f"/v1/images/{job_id}", headers=self.alice))

    async def get(self, url: str, headers: dict[str, str] | None = None) -> httpx.Response:
        return await self.gateway.client.get(url, headers=headers)


@pytest.fixture
async def lab(no_darkroom_environment: None, valkey: Redis, valkey_url: str) -> AsyncIterator[Lab]:
    store = KeyStore(valkey)
    keys = [(await make_key(store, tenant, Role.READ, Role.SUBMIT))[1] for tenant in ("alice", "bob")]
    async with running(valkey_url, url_secret=SECRET, require_keys=True) as gateway:
        yield Lab(gateway, *keys)


def changed(url: str, **query: str | None) -> str:
    parts = urlsplit(url)
    fields = {name: values[0] for name, values in parse_qs(parts.query).items()} | query
    return parts._replace(query=urlencode({k: v for k, v in fields.items() if v is not None})).geturl()


async def test_a_browser_shows_each_picture_by_its_address_alone(lab: Lab) -> None:
    job = await lab.drawn()
    for image, picture in zip(job["data"], PICTURES, strict=True):
        answer = await lab.get(image["url"])
        assert (answer.status_code, answer.content) == (200, picture)
    assert (await lab.get(job["urls"]["content"])).content == PICTURES[0]
    assert (await lab.get(job["urls"]["preview"])).status_code == 410
    assert (await lab.get(job["urls"]["self"])).status_code == 401
    assert job["urls"] == (await lab.read(job["id"]))["urls"]


async def test_a_changed_expired_or_replayed_address_opens_nothing(lab: Lab) -> None:
    job, other = await lab.drawn(), await lab.drawn()
    url = job["data"][0]["url"]
    expired = SignedAddress("alice", job["id"], "content", 0, 1_000).signature(SECRET.encode())
    signature = parse_qs(urlsplit(url).query)["signature"][0]
    wrong = [
        changed(url, signature="0" * 64),
        changed(url, signature=signature.upper()),
        changed(url, signature=signature[:-1]),
        changed(url, signature="é"),
        changed(url, signature="%00"),
        changed(url, index="1"),
        changed(url, tenant="bob"),
        changed(url, tenant=None),
        changed(url, tenant="nobody"),
        changed(url, expires=None),
        changed(url, expires="9999999999"),
        changed(url, expires="-1"),
        changed(url, expires="1e30"),
        changed(url, expires="٣"),
        changed(url, expires="9" * 5_000),
        changed(url, expires="1000", signature=expired),
        url.replace("/content?", "/preview?"),
        url.replace(job["id"], other["id"]),
        url.replace(job["id"], "img_" + "f" * 32),
        url.replace(job["id"], job["id"] + "%0Acontent"),
    ]
    details = set()
    for address in wrong:
        answer = await lab.get(address)
        assert (answer.status_code, check_error(answer)["code"]) == (403, "invalid_signature"), address
        details.add(check_error(answer)["detail"])
    assert len(details) == 1  # and not a word of which it was, or of whether there is such a job
    assert check_error(await lab.get(changed(url, tenant="\ud7ff")))["code"] == "invalid_tenant"
    assert (await lab.get(changed(url, signature=None))).status_code == 401
    assert (await lab.get(url)).content == PICTURES[0]


async def test_a_signature_opens_no_other_route(lab: Lab) -> None:
    job = await lab.drawn()
    query = urlsplit(job["data"][0]["url"]).query
    self_url = f"/v1/images/{job['id']}"
    for path in (self_url, "/v1/images", "/v1/models", "/metrics", f"{self_url}/content/", f"{self_url}/events"):
        assert (await lab.get(f"{path}?{query}")).status_code == 401, path
    for path in (f"{self_url}/cancel", f"{self_url}/content", "/v1/images"):
        assert (await lab.gateway.client.post(f"{path}?{query}")).status_code == 401, path


async def test_the_owners_key_needs_no_signature_and_another_key_does_not_spoil_one(lab: Lab) -> None:
    job = await lab.drawn()
    url = job["data"][0]["url"]
    plain = urlsplit(url).path
    for address in (plain, changed(url, signature="0" * 64), changed(url, expires="1")):
        assert (await lab.get(address, lab.alice)).content == PICTURES[0]
    assert (await lab.get(plain, lab.bob)).status_code == 404
    assert (await lab.get(changed(url, signature="0" * 64), lab.bob)).status_code == 403
    assert (await lab.get(url, lab.bob)).content == PICTURES[0]
    assert (await lab.get(url, {"authorization": "Basic dXNlcjpwYXNz"})).content == PICTURES[0]


async def test_a_made_secret_serves_every_gateway(
    no_darkroom_environment: None, valkey: Redis, valkey_url: str, tmp_path: object
) -> None:
    _, key = await make_key(KeyStore(valkey), "alice", Role.READ, Role.SUBMIT)
    store_url = f"file://{tmp_path}/images"
    async with running(valkey_url, store_url) as first, running(valkey_url, store_url) as second:
        job = await Lab(first, key, key).drawn()
        assert (await second.client.get(job["data"][0]["url"])).content == PICTURES[0]


async def test_an_open_server_signs_nothing(gateway: Gateway) -> None:
    job = await gateway.submit()
    assert "signature" not in str(job)
