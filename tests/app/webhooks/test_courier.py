"""A job's end is told: from the request over a real queue to a real receiver, again until it is heard."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, Counter
from redis.asyncio import Redis
from standardwebhooks import Webhook

from app.access.key import Role
from app.access.key_store import KeyStore
from app.access.url_secret import UrlSecret
from app.access.webhook_secret import webhook_secret
from app.jobs.keys import PREFIX
from app.jobs.queue import JobQueue
from app.webhooks.courier import RETRY_AFTER_S, Courier
from app.webhooks.outbox import Outbox
from app.webhooks.sender import Sender
from app.webhooks.target import resolve_by_system
from tests.app.access.keys import make_key
from tests.app.gateway import ANY_JOB, Gateway, check_error, running, view
from tests.app.webhooks.receiver import OK, Receiver, receiving

OH = b"HTTP/1.1 500 Oh\r\n\r\n"
SECRET = "s" * 32


@dataclass(frozen=True, slots=True)
class Lab:
    """A gateway whose own courier is off, and one in the test's hands."""

    gateway: Gateway
    receiver: Receiver
    valkey: Redis
    courier: Courier
    counter: Counter

    async def submit(self, **fields: object) -> dict[str, Any]:
        hook = {"webhook_url": f"http://127.0.0.1:{self.receiver.port}/hook"}
        return await self.gateway.submit(**(hook | fields))

    async def draw(self) -> None:
        await self.gateway.complete(await self.gateway.claim(), b"a picture")

    async def let_pass(self, seconds: float) -> None:
        for name in ("hooks:open", "hooks:due"):
            for job_id in cast(list[str], await self.valkey.zrange(PREFIX + name, 0, -1)):
                await self.valkey.zincrby(PREFIX + name, -seconds * 1000, job_id)

    async def go_on(self) -> None:
        """Everything that is due now."""
        while await self.courier.look() + await self.courier.deliver():
            pass

    async def left(self) -> list[str]:
        return cast(list[str], await self.valkey.keys(f"{PREFIX}hook*"))

    def counts(self) -> dict[str, float]:
        [metric] = self.counter.collect()
        return {s.labels["outcome"]: s.value for s in metric.samples if s.name.endswith("_total")}

    def told(self) -> list[dict[str, Any]]:
        secret = webhook_secret(SECRET.encode(), "default")
        return [Webhook(secret).verify(body, headers) for headers, body in self.receiver.seen]


@pytest.fixture
async def lab(no_darkroom_environment: None, valkey: Redis, valkey_url: str) -> AsyncIterator[Lab]:
    sender = Sender(resolve_by_system, allow_private=True, timeout_s=2.0)
    counter = Counter("deliveries", "", ["outcome"], registry=CollectorRegistry())
    courier = Courier(Outbox(valkey), sender, JobQueue(valkey), UrlSecret(valkey, SECRET), counter)
    async with running(valkey_url) as gateway, receiving() as receiver:
        # Its settings say that webhooks are on; its own courier, started by them, would be in the test's way.
        settings = gateway.services.settings.model_copy(update={"webhooks": True, "webhook_allow_private": True})
        object.__setattr__(gateway.services, "settings", settings)
        yield Lab(gateway, receiver, valkey, courier, counter)
    await sender.close()


async def test_a_completed_job_is_told_once(lab: Lab) -> None:
    job = await lab.submit(metadata={"order": "7"})
    await lab.go_on()
    assert lab.receiver.seen == []
    await lab.draw()
    await lab.let_pass(2)
    await lab.go_on()
    await lab.let_pass(1_000_000)
    await lab.go_on()
    [told] = lab.told()
    assert told["type"] == "image.completed"
    assert told["data"] == {
        "id": job["id"],
        "object": "image",
        "status": "completed",
        "model": "tiny-sd3",
        "error": None,
        "metadata": {"order": "7"},
        "url": job["urls"]["self"],
    }
    assert (await lab.gateway.read(job["id"]))["completed_at"] == told["timestamp"]
    assert lab.receiver.seen[0][0]["webhook-id"] == f"msg_{job['id']}"
    assert lab.counts() == {"delivered": 1}
    assert await lab.left() == []


async def test_failures_and_cancellations_are_told_too(lab: Lab) -> None:
    await lab.submit()
    await lab.gateway.fail(await lab.gateway.claim())
    canceled = await lab.submit()
    await lab.gateway.client.post(f"/v1/images/{canceled['id']}/cancel")
    await lab.go_on()
    failed, told = sorted(lab.told(), key=lambda message: str(message["type"]), reverse=True)
    assert (failed["type"], failed["data"]["error"]["code"]) == ("image.failed", "invalid_output")
    assert (told["type"], told["data"]["error"]) == ("image.canceled", None)


async def test_only_what_was_asked_for_is_told(lab: Lab) -> None:
    await lab.submit(webhook_events=["failed"])
    await lab.draw()
    await lab.go_on()
    assert lab.receiver.seen == []
    assert await lab.left() == []


async def test_it_is_tried_again_with_the_same_id_and_body_until_it_is_heard(lab: Lab) -> None:
    lab.receiver.answers = [OH, OH, None, OK]
    await lab.submit()
    await lab.draw()
    await lab.go_on()
    for delay_s in RETRY_AFTER_S[:3]:
        before = len(lab.receiver.seen)
        await lab.let_pass(delay_s - 3)
        await lab.go_on()
        assert len(lab.receiver.seen) == before
        await lab.let_pass(3.1)
        await lab.go_on()
        assert len(lab.receiver.seen) == before + 1
    assert len({(headers["webhook-id"], body) for headers, body in lab.receiver.seen}) == 1
    assert lab.counts() == {"failed": 3, "delivered": 1}
    assert await lab.left() == []


async def test_it_is_given_up_at_last(lab: Lab) -> None:
    lab.receiver.answers = [OH]
    await lab.submit()
    await lab.draw()
    await lab.go_on()
    for _ in range(20):
        await lab.let_pass(100_000)
        await lab.go_on()
    assert lab.counts() == {"failed": 1 + len(RETRY_AFTER_S)}
    assert await lab.left() == []


async def test_what_nobody_foresaw_is_a_failed_attempt_of_that_message_only(lab: Lab) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        if host == "broken.test":
            raise ValueError(host)
        return ["127.0.0.1"]

    sender = Sender(resolve, allow_private=True, timeout_s=2.0)
    courier = Courier(Outbox(lab.valkey), sender, JobQueue(lab.valkey), UrlSecret(lab.valkey, SECRET), lab.counter)
    for host in ("broken.test", "good.test"):
        await lab.submit(webhook_url=f"http://{host}:{lab.receiver.port}/")
        await lab.draw()
    await courier.look()
    for _ in range(20):
        await courier.deliver()
        await lab.let_pass(100_000)
    await sender.close()
    assert lab.counts() == {"delivered": 1, "failed": 1 + len(RETRY_AFTER_S)}
    assert await lab.left() == []


async def test_a_gateway_that_dies_in_the_middle_loses_nothing(lab: Lab) -> None:
    await lab.submit()
    await lab.draw()
    await lab.courier.look()
    [job_id] = await Outbox(lab.valkey).take_due(10, lease_s=60)  # taken, and then that gateway died
    await lab.go_on()
    assert lab.receiver.seen == []
    await lab.let_pass(60)
    await lab.go_on()
    assert [told["data"]["id"] for told in lab.told()] == [job_id]


async def test_two_gateways_tell_it_once(lab: Lab) -> None:
    for _ in range(5):
        await lab.submit()
        await lab.draw()
    await lab.courier.look()
    outbox = Outbox(lab.valkey)
    taken = [*await outbox.take_due(3, lease_s=60), *await outbox.take_due(9, lease_s=60)]
    assert len(taken) == len(set(taken)) == 5


async def test_a_job_that_is_not_there_is_waited_for_a_while_only(lab: Lab) -> None:
    job = await lab.submit()
    await lab.valkey.hset(f"{PREFIX}job:{job['id']}", "tenant", "somebody")
    await lab.go_on()
    assert await lab.left() != []
    for _ in range(15):
        await lab.let_pass(2)
        await lab.go_on()
    assert await lab.left() == []


async def test_a_refused_request_leaves_no_hook(lab: Lab) -> None:
    url = "http://127.0.0.1/"
    assert (await lab.gateway.post({"prompt": "", "webhook_url": url})).status_code == 422
    for fields in (
        {"webhook_events": ["completed"]},
        {"webhook_url": url, "webhook_events": ["painted"]},
        {"webhook_url": url, "webhook_events": "failed"},
        {"webhook_url": 7},
    ):
        body = check_error(await lab.gateway.post({"prompt": "a ring"} | fields))
        assert body["code"] in ("invalid_webhook_events", "invalid_webhook_url")
    assert not await lab.valkey.exists(ANY_JOB, f"{PREFIX}hooks:open")


async def test_they_are_off_unless_asked_for(gateway: Gateway) -> None:
    answer = await gateway.post({"prompt": "a ring", "webhook_url": "https://hooks.test/"})
    assert (answer.status_code, check_error(answer)["code"]) == (422, "invalid_webhook_url")


async def test_a_gateway_tells_by_itself_with_its_tenants_secret(
    no_darkroom_environment: None, valkey: Redis, valkey_url: str
) -> None:
    _, key = await make_key(KeyStore(valkey), "alice", Role.READ, Role.SUBMIT)
    async with receiving() as receiver, running(valkey_url, webhooks=True, webhook_allow_private=True) as gateway:
        fields = {"prompt": "a ring", "model": "tiny-sd3", "webhook_url": f"http://localhost:{receiver.port}/"}
        job = view(await gateway.client.post("/v1/images", json=fields, headers={"authorization": f"Bearer {key}"}))
        await gateway.complete(await gateway.claim(), b"a picture")
        async with asyncio.timeout(20):
            await receiver.heard.wait()
        [(headers, body)] = receiver.seen
        secret = webhook_secret(await UrlSecret(valkey, None).get(), "alice")
        assert Webhook(secret).verify(body, headers)["data"]["id"] == job["id"]
        with pytest.raises(Exception, match="No matching signature"):
            Webhook(webhook_secret(await UrlSecret(valkey, None).get(), "bob")).verify(body, headers)
