"""/livez, /readyz and /v1/models."""

import pytest

from app.jobs.schema import StepTime, WorkerInfo
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


async def test_a_model_shows_what_its_live_workers_need_and_cost(gateway: Gateway) -> None:
    def step(model: str, seconds: float, rows: int = 2) -> StepTime:
        return StepTime(model=model, height=128, width=128, rows=rows, seconds=seconds)

    async def shown() -> tuple[list[dict[str, float]], float | None]:
        [model] = [each for each in view(await gateway.client.get("/v1/models"))["data"] if each["id"] == "tiny-sd3"]
        return model["step_times"], model["usd_per_image"]

    assert await shown() == ([], None)
    for name, seconds, usd_per_hour in (("a", 0.5, 3.6), ("b", 1.0, 3.6), ("c", 0.5, 0)):
        info = WorkerInfo(
            id=name,
            version="1",
            models=("tiny-sd3", "flux-dev"),
            device="cpu",
            jobs_in_progress=0,
            step_times=(step("tiny-sd3", seconds), step("flux-dev", 7.0)),
            usd_per_hour=usd_per_hour,
        )
        await gateway.worker.heartbeat(info, forget_after_s=60)
    times, usd = await shown()
    assert sorted(each["seconds"] for each in times) == [0.5, 0.5, 1.0]
    assert times[0] | {"seconds": 0} == {"width": 128, "height": 128, "rows": 2, "seconds": 0}
    # 20 steps of 0.75 s in the mean, at 0.001 USD a second; who knows no price tells none.
    assert usd == pytest.approx(20 * 0.75 * 0.001)
