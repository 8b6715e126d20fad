"""One running server with all bundled models, for all clients."""

from collections.abc import Iterator

import httpx
import pytest

from tests.processes import wait_until
from tests.system.up import Up

PROMPT = "a small red ring on the left on a blue background"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its base URL. Previews come often, since the bundled models are quick."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DARKROOM_PREVIEW_EVERY_S", "0.05")
        environment.setenv("DARKROOM_CALIBRATION_S", "0")
        up = Up(tmp_path_factory.mktemp("up"), "--model", "tiny-flux-dev", "--model", "tiny-sd3")
    try:
        up.wait_until_ready(within_s=200)
        yield up.url
    finally:
        up.end()


@pytest.fixture(scope="session")
def picture(server: str) -> bytes:
    """What `POST /v1/images` gives for PROMPT by tiny-flux-schnell with seed 7: every client must get these bytes."""
    asked = {"prompt": PROMPT, "model": "tiny-flux-schnell", "seed": 7}
    job = httpx.post(f"{server}/v1/images", json=asked).json()["urls"]["self"]
    assert wait_until(lambda: httpx.get(job).json()["status"] == "completed", 30)
    return httpx.get(f"{job}/content").content


def newest(server: str) -> dict[str, str]:
    """The job that was submitted last."""
    job: dict[str, str] = httpx.get(f"{server}/v1/images?limit=1").json()["data"][0]
    return job
