"""/livez, /readyz and /v1/models."""

from app.jobs.schema import WorkerInfo
from tests.app.gateway import Gateway, view


async def heartbeat(gateway: Gateway, name: str, *models: str, forget_after_s: float = 60) -> None:
    info = WorkerInfo(id=name, version="1", models=models, device="cpu", jobs_in_progress=0)
    await gateway.worker.heartbeat(info, forget_after_s=forget_after_s)


async def test_alive(gateway: Gateway) -> None:
    assert view(await gateway.client.get("/livez")) == {"status": "alive"}


async def test_ready_without_workers_and_with_them(gateway: Gateway) -> None:
    counts = []
    for change in (0.0, 60.0, 0.0):
        await heartbeat(gateway, "worker-1", "tiny-sd3", forget_after_s=change)
        answer = view(await gateway.client.get("/readyz"))
        counts.append(answer.pop("workers"))
        assert answer == {"status": "ready", "redis": "ok"}
    assert counts == [0, 1, 0]


async def test_the_models_and_who_serves_them(gateway: Gateway) -> None:
    await heartbeat(gateway, "worker-1", "tiny-sd3", "flux-dev")
    await heartbeat(gateway, "worker-2", "tiny-sd3")
    models = view(await gateway.client.get("/v1/models"))
    assert models["object"] == "list"
    live = {model["id"]: model["workers_live"] for model in models["data"]}
    assert list(live) == list(gateway.services.catalog)
    assert {name for name, count in live.items() if count} == {"tiny-sd3", "flux-dev"}
    assert (live["tiny-sd3"], live["flux-dev"]) == (2, 1)


async def test_a_model_says_what_it_takes(gateway: Gateway) -> None:
    [model] = [model for model in view(await gateway.client.get("/v1/models"))["data"] if model["id"] == "flux-dev"]
    card = gateway.services.catalog["flux-dev"]
    assert (model["object"], model["created"], model["owned_by"]) == ("model", 0, "black-forest-labs")
    assert model["limits"] == card.limits.model_dump()
    assert model["defaults"] == card.defaults.model_dump()
    assert model["recommended"] == card.recommended.model_dump()
    assert (model["family"], model["guidance"], model["revision"]) == ("flux", "embedded", card.source.revision)
    defaults = {name: value for name, value in model["defaults"].items() if name != "max_sequence_length"}
    assert (await gateway.submit(model="flux-dev"))["parameters"].items() >= defaults.items()
