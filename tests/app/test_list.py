"""The list of jobs: pages, filters, and whose they are."""

import pytest
from redis.asyncio import Redis

from app.jobs.queue import JobQueue
from tests.app.gateway import ANY_JOB, Gateway, check_error, view
from tests.conftest import make_job


async def submit(gateway: Gateway, count: int, **fields: object) -> list[str]:
    """Submit jobs; give their ids, newest first."""
    return [(await gateway.submit(**fields))["id"] for _ in range(count)][::-1]


async def pages(gateway: Gateway, **params: str | int) -> list[list[str]]:
    """Follow `next_after` to the end."""
    found: list[list[str]] = []
    more: dict[str, str | int] = {}
    while True:
        page = view(await gateway.client.get("/v1/images", params=params | more))
        assert page["object"] == "list"
        assert page["has_more"] is (page["next_after"] is not None)
        found.append([job["id"] for job in page["data"]])
        if not page["has_more"]:
            return found
        more = {"after": page["next_after"]}


async def test_there_is_nothing_yet(gateway: Gateway) -> None:
    response = await gateway.client.get("/v1/images")
    assert view(response) == {"object": "list", "data": [], "has_more": False, "next_after": None}


async def test_newest_first_and_as_each_job_says_itself(gateway: Gateway) -> None:
    ids = await submit(gateway, 3)
    data = view(await gateway.client.get("/v1/images"))["data"]
    assert [job["id"] for job in data] == ids
    assert data == [await gateway.read(job_id) for job_id in ids]


@pytest.mark.parametrize(
    ("limit", "sizes"), [(1, [1, 1, 1, 1, 1, 1]), (2, [2, 2, 2]), (4, [4, 2]), (5, [5, 1]), (6, [6]), (100, [6])]
)
async def test_pages_have_every_job_once(gateway: Gateway, limit: int, sizes: list[int]) -> None:
    ids = await submit(gateway, 6)
    found = await pages(gateway, limit=limit)
    assert [len(page) for page in found] == sizes
    assert [job_id for page in found for job_id in page] == ids


async def test_a_page_has_twenty_unless_asked(gateway: Gateway) -> None:
    await submit(gateway, 21)
    assert [len(page) for page in await pages(gateway)] == [20, 1]


async def test_new_jobs_do_not_shift_the_pages(gateway: Gateway) -> None:
    ids = await submit(gateway, 5)
    first = view(await gateway.client.get("/v1/images", params={"limit": 2}))
    await submit(gateway, 3)
    rest = await gateway.list_ids(limit=100, after=first["next_after"])
    assert [job["id"] for job in first["data"]] + rest == ids


async def test_a_job_that_ends_keeps_its_place(gateway: Gateway) -> None:
    ids = await submit(gateway, 3)
    await gateway.complete(await gateway.claim(), b"one")
    await gateway.client.post(f"/v1/images/{ids[1]}/cancel")
    assert await gateway.list_ids() == ids
    assert await gateway.list_ids(after=ids[1]) == [ids[2]]


async def in_every_status(gateway: Gateway) -> dict[str, list[str]]:
    """Bring a job, or two that a client cannot tell apart, into every status; newest first."""
    ids: dict[str, list[str]] = {}
    for ending in ("completed", "failed"):
        ids[ending] = await submit(gateway, 1)
        claim = await gateway.claim(f"token-{ending}")
        await (gateway.complete(claim, b"one") if ending == "completed" else gateway.fail(claim))
    ids["canceled"] = await submit(gateway, 1)
    await gateway.client.post(f"/v1/images/{ids['canceled'][0]}/cancel")
    ids["in_progress"] = await submit(gateway, 2)
    for token in ("token-1", "token-2"):
        await gateway.claim(token)
    await gateway.client.post(f"/v1/images/{ids['in_progress'][0]}/cancel")
    ids["queued"] = await submit(gateway, 2)
    return ids


async def test_filter_by_status(gateway: Gateway) -> None:
    ids = await in_every_status(gateway)
    for status, expected in ids.items():
        assert await gateway.list_ids(status=status) == expected
        assert await pages(gateway, status=status, limit=1) == [[job_id] for job_id in expected]
        for job_id in expected:
            assert (await gateway.read(job_id))["status"] == status
    assert len(await gateway.list_ids()) == 7


async def test_filter_by_model(gateway: Gateway) -> None:
    flux = await submit(gateway, 2, model="tiny-flux-dev")
    sd3 = await submit(gateway, 1)
    flux = await submit(gateway, 1, model="tiny-flux-dev") + flux
    assert await gateway.list_ids(model="tiny-flux-dev") == flux
    assert await gateway.list_ids(model="tiny-sd3") == sd3
    assert await pages(gateway, model="tiny-flux-dev", limit=2) == [flux[:2], flux[2:]]
    assert await gateway.list_ids(model="tiny-flux-dev", after=sd3[0]) == flux[1:]
    assert await gateway.list_ids(model="flux-dev") == await gateway.list_ids(model="no-such-model") == []


async def test_filters_join(gateway: Gateway) -> None:
    await submit(gateway, 1, model="tiny-flux-dev")
    waiting, done = await submit(gateway, 2)
    await gateway.complete(await gateway.claim(), b"one")
    assert await gateway.list_ids(model="tiny-sd3", status="completed") == [done]
    assert await gateway.list_ids(model="tiny-sd3", status="queued") == [waiting]
    assert await gateway.list_ids(model="tiny-flux-dev", status="completed") == []


async def test_other_tenants_are_unseen(gateway: Gateway, queue: JobQueue) -> None:
    [ours] = await submit(gateway, 1)
    theirs = make_job(tenant="other")
    await queue.submit(theirs)
    assert await gateway.list_ids() == [ours]
    body = check_error(await gateway.client.get("/v1/images", params={"after": theirs.id}))
    assert (body["code"], body["detail"]) == ("invalid_after", f"there is no job {theirs.id!r} to start after")


BAD_QUESTIONS = [
    ("limit=0", "invalid_limit", "limit"),
    ("limit=-1", "invalid_limit", "limit"),
    ("limit=101", "invalid_limit", "limit"),
    ("limit=ten", "invalid_limit", "limit"),
    ("limit=1.5", "invalid_limit", "limit"),
    ("limit=", "invalid_limit", "limit"),
    (f"limit={'9' * 5_000}", "invalid_limit", "limit"),
    ("status=done", "invalid_status", "status"),
    ("status=QUEUED", "invalid_status", "status"),
    ("status=delayed", "invalid_status", "status"),
    ("status=", "invalid_status", "status"),
    ("status=%00", "invalid_status", "status"),
    ("after=img_nowhere", "invalid_after", "after"),
    ("after=%00", "invalid_after", "after"),
    ("after=%ED%A0%80", "invalid_after", "after"),
    (f"after={'x' * 65}", "invalid_after", "after"),
    (f"model={'x' * 129}", "invalid_model", "model"),
]


async def test_bad_questions(gateway: Gateway, valkey: Redis) -> None:
    for query, code, param in BAD_QUESTIONS:
        body = check_error(await gateway.client.get(f"/v1/images?{query}"))
        assert (body["status"], body["code"], body["param"]) == (422, code, param)
        assert not await valkey.exists(ANY_JOB)
