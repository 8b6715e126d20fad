"""What Open WebUI's AUTOMATIC1111 engine sends, request by request (backend/open_webui/routers/images.py, v0.6 on)."""

import base64
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image

from tests.clients.conftest import PROMPT, newest
from tests.clients.pictures import same
from tests.processes import wait_until

pytestmark = pytest.mark.timeout(300)  # three models may take long to load where others work too

# Without credentials it sends the header empty.
HEADERS = {"authorization": ""}


@pytest.fixture
def webui(server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{server}/sdapi/v1", headers=HEADERS, timeout=60) as client:
        yield client


def choose(webui: httpx.Client, model: str) -> None:
    """Read the options, and send all of them back with another model, as its settings page does."""
    options = webui.get("/options").json()
    if options["sd_model_checkpoint"] != model:
        options["sd_model_checkpoint"] = model
        webui.post("/options", json=options).raise_for_status()
    assert webui.get("/options").json()["sd_model_checkpoint"] == model


def test_its_settings_page(webui: httpx.Client) -> None:
    models = [{"id": model["title"], "name": model["model_name"]} for model in webui.get("/sd-models").json()]
    assert {"id": "tiny-sd3", "name": "tiny-sd3"} in models
    choose(webui, "tiny-sd3")
    choose(webui, "tiny-flux-schnell")
    assert webui.post("/options", json={"sd_model_checkpoint": "v1-5-pruned"}).status_code == 404
    assert webui.get("/options").json()["sd_model_checkpoint"] == "tiny-flux-schnell"


def test_its_pictures(webui: httpx.Client, picture: bytes) -> None:
    choose(webui, "tiny-flux-schnell")
    asked = {"prompt": PROMPT, "batch_size": 2, "width": 128, "height": 128, "steps": 4, "negative_prompt": ""}
    # AUTOMATIC1111_PARAMS of its settings are added to the request.
    parameters = {"seed": 7, "sampler_name": "DPM++ 2M", "scheduler": "karras", "restore_faces": False}
    answer = webui.post("/txt2img", json={**asked, **parameters}).json()
    pictures = [base64.b64decode(image) for image in answer["images"]]
    assert same(pictures[0], picture)
    assert len(pictures) == 2
    info = json.loads(answer["info"])
    assert (info["all_seeds"], info["sd_model_name"], info["warnings"]) == ([7, 8], "tiny-flux-schnell", [])


def test_a_request_may_name_its_model_and_leave_the_rest_to_it(webui: httpx.Client) -> None:
    choose(webui, "tiny-flux-schnell")
    override = {"sd_model_checkpoint": "tiny-sd3"}
    answer = webui.post("/txt2img", json={"prompt": PROMPT, "seed": -1, "override_settings": override}).json()
    info = json.loads(answer["info"])
    assert (info["sd_model_name"], info["steps"], info["cfg_scale"], info["width"]) == ("tiny-sd3", 20, 2.5, 128)
    with Image.open(io.BytesIO(base64.b64decode(answer["images"][0]))) as image:
        assert image.size == (128, 128)
    assert webui.get("/options").json()["sd_model_checkpoint"] == "tiny-flux-schnell"


def test_progress_and_interrupt(webui: httpx.Client, server: str) -> None:
    assert webui.get("/progress").json()["progress"] == 0
    slow = {"prompt": PROMPT, "steps": 100, "width": 256, "height": 256}
    with ThreadPoolExecutor() as threads:
        drawing = threads.submit(webui.post, "/txt2img", json=slow)
        seen = []

        def is_seen() -> bool:
            seen.append(webui.get("/progress").json())
            return bool(seen[-1]["current_image"]) and seen[-1]["progress"] > 0

        assert wait_until(is_seen, 30), seen[-1]
        with Image.open(io.BytesIO(base64.b64decode(seen[-1]["current_image"]))) as preview:
            assert preview.format == "JPEG"
        assert seen[-1]["state"]["sampling_steps"] == 100
        assert seen[-1]["eta_relative"] > 0
        assert webui.post("/interrupt").is_success
        answer = drawing.result()
    assert (answer.status_code, answer.json()["code"]) == (409, "image_canceled")
    assert newest(server)["status"] == "canceled"


def test_what_is_refused(webui: httpx.Client) -> None:
    for fields, param in (
        ({"width": 1000, "height": 64}, "width"),
        ({"steps": 0}, "num_inference_steps"),
        ({"enable_hr": True}, "enable_hr"),
        ({"batch_size": 4, "n_iter": 4}, "n"),
    ):
        answer = webui.post("/txt2img", json={"prompt": PROMPT, **fields})
        assert (answer.status_code, answer.json()["param"]) == (422, param), answer.text
