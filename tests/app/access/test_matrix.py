"""Two tenants, an admin and lesser keys at every route of the application: who gets what, and what nobody can tell."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from app.access.key import Role
from app.access.key_store import KeyStore
from app.main import create_app
from app.settings import GatewaySettings
from tests.app.access.keys import make_key
from tests.app.gateway import Gateway, running, view

ABSENT = "img_" + "f" * 32


@dataclass(frozen=True, slots=True)
class Row:
    """A route: the role that it needs (None: it is open), what it answers then, and whether a job is in its address."""

    role: Role | None
    good: int
    of_job: bool = True


# A new route belongs here, or the first test fails.
ROWS = {
    "POST /v1/images": Row(Role.SUBMIT, 202, of_job=False),
    "GET /v1/images": Row(Role.READ, 200, of_job=False),
    "GET /v1/images/{job_id}": Row(Role.READ, 200),
    "GET /v1/images/{job_id}/events": Row(Role.READ, 200),
    "DELETE /v1/images/{job_id}": Row(Role.SUBMIT, 204),
    "GET /v1/images/{job_id}/content": Row(Role.READ, 202),
    "HEAD /v1/images/{job_id}/content": Row(Role.READ, 202),
    "GET /v1/images/{job_id}/preview": Row(Role.READ, 202),
    "POST /v1/images/{job_id}/cancel": Row(Role.SUBMIT, 200),
    "GET /v1/models": Row(Role.READ, 200, of_job=False),
    # No worker is there to draw: those who wait for their picture wait in vain.
    "POST /v1/images/generations": Row(Role.SUBMIT, 504, of_job=False),
    "POST /hf/{model}": Row(Role.SUBMIT, 504, of_job=False),
    "POST /sdapi/v1/txt2img": Row(Role.SUBMIT, 504, of_job=False),
    "GET /sdapi/v1/options": Row(Role.READ, 200, of_job=False),
    "POST /sdapi/v1/options": Row(Role.SUBMIT, 200, of_job=False),
    "GET /sdapi/v1/sd-models": Row(Role.READ, 200, of_job=False),
    "GET /sdapi/v1/samplers": Row(Role.READ, 200, of_job=False),
    "GET /sdapi/v1/progress": Row(Role.READ, 200, of_job=False),
    "POST /sdapi/v1/interrupt": Row(Role.SUBMIT, 200, of_job=False),
    "GET /livez": Row(None, 200, of_job=False),
    "GET /readyz": Row(None, 200, of_job=False),
    "GET /metrics": Row(Role.ADMIN, 200, of_job=False),
}
OPEN = {route for route, row in ROWS.items() if row.role in (None, Role.ADMIN)}
# Everybody's, and the same for all.
OF_NOBODY = ("GET /v1/models", "GET /sdapi/v1/sd-models", "GET /sdapi/v1/samplers")
RING = {"prompt": "a ring", "model": "tiny-sd3"}
BODIES: dict[str, dict[str, Any]] = {
    "POST /v1/images": RING,
    "POST /v1/images/generations": RING,
    "POST /hf/{model}": {"inputs": "a ring"},
    "POST /sdapi/v1/txt2img": {"prompt": "a ring"},
    "POST /sdapi/v1/options": {"sd_model_checkpoint": "tiny-sd3"},
}


@dataclass(frozen=True, slots=True)
class Lab:
    gateway: Gateway
    keys: dict[str, str]

    async def ask(self, route: str, key: str | None, job_id: str, **params: str) -> httpx.Response:
        method, _, path = route.partition(" ")
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return await self.gateway.client.request(
            method,
            path.replace("{job_id}", job_id).replace("{model}", "tiny-sd3"),
            headers=headers,
            params=params,
            json=BODIES.get(route),
        )

    async def alices_job(self, route: str) -> str:
        """A job that waits; one that is over where the answer would go on until it is."""
        answer = await self.ask("POST /v1/images", self.keys["alice"], "")
        assert answer.status_code == 202
        job_id = str(view(answer)["id"])
        if route.endswith("/events"):
            await self.gateway.worker.cancel("alice", job_id)
        return job_id


@pytest.fixture
async def lab(no_darkroom_environment: None, valkey: Redis, valkey_url: str) -> AsyncIterator[Lab]:
    store = KeyStore(valkey)
    made = {
        "alice": await make_key(store, "alice", Role.READ, Role.SUBMIT),
        "revoked": await make_key(store, "alice", Role.READ, Role.SUBMIT),
        "bob": await make_key(store, "bob", Role.READ, Role.SUBMIT),
        "admin": await make_key(store, "operations", Role.ADMIN),
    }
    await store.revoke(made["revoked"][0].id)
    made["reader"] = await make_key(store, "alice", Role.READ)
    # One more key than a tenant may have, so that one role at a time is tried.
    record, text = await make_key(store, "carol", Role.SUBMIT)
    await valkey.hset(f"darkroom:{{q}}:key:{record.id}", "tenant", "alice")
    made["submitter"] = (record, text)
    async with running(valkey_url, require_keys=True, wait_timeout_s=0.05) as gateway:
        yield Lab(gateway, {name: text for name, (_, text) in made.items()})


def operations() -> list[str]:
    paths = create_app(GatewaySettings(store_url="memory://")).openapi()["paths"]
    return [f"{method.upper()} {path}" for path, methods in paths.items() for method in methods]


def test_every_route_has_its_row() -> None:
    assert set(operations()) == set(ROWS)
    assert {route for route, row in ROWS.items() if row.of_job} == {
        route for route in operations() if "{job_id}" in route
    }


def expected(row: Row, who: str) -> int:
    roles = {
        "alice": {Role.READ, Role.SUBMIT},
        "bob": {Role.READ, Role.SUBMIT},
        "reader": {Role.READ},
        "submitter": {Role.SUBMIT},
        "admin": set(Role),
    }
    if row.role is None:
        return row.good
    if who not in roles:
        return 401
    if row.role not in roles[who]:
        return 403
    return 404 if row.of_job and who in ("bob", "admin") else row.good


@pytest.mark.parametrize("route", ROWS)
async def test_who_gets_what(lab: Lab, route: str) -> None:
    row = ROWS[route]
    for who in ("alice", "reader", "submitter", "bob", "admin", "revoked", None):
        job_id = await lab.alices_job(route)
        answer = await lab.ask(route, lab.keys[who] if who else None, job_id)
        assert answer.status_code == expected(row, who or "nobody"), who
        if answer.status_code == 401:
            assert code(answer) in ("unauthorized", None)
            assert answer.headers["www-authenticate"].startswith('Bearer realm="darkroom"')
        if answer.status_code == 403:
            assert code(answer) in ("forbidden", None)
        changed = route.endswith("/events") or (answer.status_code == 200 and route.endswith("/cancel"))
        deleted = answer.status_code == 204
        seen = view(await lab.ask("GET /v1/images/{job_id}", lab.keys["alice"], job_id))
        assert seen.get("status") == (404 if deleted else "canceled" if changed else "queued"), who


@pytest.mark.parametrize("route", [route for route, row in ROWS.items() if row.of_job])
async def test_anothers_job_is_like_one_that_never_was(lab: Lab, valkey: Redis, route: str) -> None:
    job_id = await lab.alices_job(route)
    await lab.ask(route, lab.keys["bob"], job_id)  # so that keys are remembered, and scripts loaded
    looks = []
    for asked in (job_id, ABSENT):
        before = await commands(valkey)
        answer = await lab.ask(route, lab.keys["bob"], asked)
        work = await commands(valkey) - before
        body = {} if route.startswith("HEAD") else view(answer)
        headers = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
        looks.append((answer.status_code, headers, body | {"request_id": ""}, work))
    assert looks[0] == looks[1]
    assert job_id not in str(looks[0])


@pytest.mark.parametrize("route", sorted(ROWS.keys() - OPEN - set(OF_NOBODY)))
async def test_only_an_admin_may_name_a_tenant(lab: Lab, route: str) -> None:
    row = ROWS[route]
    job_id = await lab.alices_job(route)
    for tenant in ("alice", "nobody"):  # bob cannot tell who exists
        answer = await lab.ask(route, lab.keys["bob"], job_id, tenant=tenant)
        assert (answer.status_code, code(answer)) in ((403, "forbidden"), (403, None))
    assert (await lab.ask(route, lab.keys["admin"], job_id, tenant="alice")).status_code == row.good
    other = await lab.ask(route, lab.keys["admin"], job_id, tenant="nobody")
    assert other.status_code == (404 if row.of_job else row.good)


async def test_a_list_is_ones_own(lab: Lab) -> None:
    job_id = await lab.alices_job("")
    route = "GET /v1/images"

    async def ids(who: str, **params: str) -> list[str]:
        return [job["id"] for job in view(await lab.ask(route, lab.keys[who], "", **params))["data"]]

    assert await ids("alice") == await ids("reader") == await ids("admin", tenant="alice") == [job_id]
    assert await ids("bob") == await ids("admin") == []
    # A cursor into another's list is as wrong as one into nowhere.
    answers = [view(await lab.ask(route, lab.keys["bob"], "", after=after)) for after in (job_id, ABSENT)]
    assert [answer["code"] for answer in answers] == ["invalid_after"] * 2
    assert answers[0]["detail"].replace(job_id, "") == answers[1]["detail"].replace(ABSENT, "")


async def test_what_an_admin_asks_for_a_tenant_is_the_tenants(lab: Lab) -> None:
    made = view(await lab.ask("POST /v1/images", lab.keys["admin"], "", tenant="alice"))
    assert (await lab.ask("GET /v1/images/{job_id}", lab.keys["alice"], made["id"])).status_code == 200
    assert (await lab.ask("GET /v1/images/{job_id}", lab.keys["admin"], made["id"])).status_code == 404


@pytest.mark.parametrize("path", ["/", "/v1", "/nothing", "/v1/images/", "//livez", "/livez/", "/LIVEZ", "/metrics/"])
async def test_who_has_no_key_cannot_tell_what_is_there(lab: Lab, path: str) -> None:
    for method in ("GET", "POST", "OPTIONS", "HEAD", "TRACE", "BREW"):
        assert (await lab.gateway.client.request(method, path)).status_code == 401


def code(answer: httpx.Response) -> str | None:
    """The error's code; an answer to HEAD has none, but says the rest."""
    return None if answer.request.method == "HEAD" else str(view(answer)["code"])


async def commands(valkey: Redis) -> int:
    """Commands that the server did, those that scripts call included, but for this look itself."""
    stats = await valkey.info("commandstats")
    return sum(entry["calls"] for name, entry in stats.items() if name != "cmdstat_info")
