"""A newer gateway or worker on the same queue, as during an upgrade: its own messages are all that is out of reach."""

from app.jobs.keys import PREFIX
from app.jobs.schema import ImageJob, WorkerInfo
from tests.app.gateway import Gateway, check_error, view
from tests.conftest import make_job


class NewerJob(ImageJob):
    from_the_future: str = "1"


class NewerWorker(WorkerInfo):
    from_the_future: str = "1"


async def test_a_newer_gateways_job_is_shown_but_for_what_is_new(gateway: Gateway) -> None:
    ours = (await gateway.submit())["id"]
    newer = NewerJob(**make_job().model_dump(), from_the_future="2")
    await gateway.worker.submit(newer)
    assert "from_the_future" in str(await gateway.redis.hget(f"{PREFIX}job:{newer.id}", "spec"))
    assert (await gateway.read(newer.id))["status"] == "queued"
    assert await gateway.list_ids() == [newer.id, ours]
    canceled = view(await gateway.client.post(f"/v1/images/{newer.id}/cancel"))
    assert canceled["status"] == "canceled"


async def test_a_job_that_cannot_be_read_is_out_of_reach_and_hides_no_other(gateway: Gateway) -> None:
    ours, spoiled = (await gateway.submit())["id"], (await gateway.submit())["id"]
    await gateway.redis.hset(f"{PREFIX}job:{spoiled}", "spec", "{}")
    for method, suffix in (("GET", ""), ("GET", "/content"), ("POST", "/cancel")):
        body = check_error(await gateway.client.request(method, f"/v1/images/{spoiled}{suffix}"))
        assert (body["status"], body["code"]) == (503, "job_unreadable")
        assert body["detail"] == "Another version of this server wrote the job, and this one cannot read it."
    assert await gateway.list_ids() == [ours]
    assert (await gateway.read(ours))["status"] == "queued"


async def test_a_newer_worker_is_counted(gateway: Gateway) -> None:
    worker = NewerWorker(id="worker-2", version="9", models=("tiny-sd3",), device="cpu", jobs_in_progress=0)
    await gateway.worker.heartbeat(worker, forget_after_s=60)
    assert view(await gateway.client.get("/readyz"))["workers"] == 1
    assert "\ndarkroom_queue_up 1.0\n" in (await gateway.client.get("/metrics")).text
    assert (await gateway.client.get("/v1/models")).status_code == 200
