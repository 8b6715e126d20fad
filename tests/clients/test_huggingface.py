"""huggingface_hub's InferenceClient, unmodified."""

import io

import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from tests.clients.conftest import PROMPT
from tests.clients.pictures import same

pytestmark = pytest.mark.timeout(300)  # three models may take long to load where others work too


@pytest.mark.parametrize("path", ["hf/tiny-flux-schnell", "hf/models/tiny-flux-schnell"])
def test_text_to_image(server: str, picture: bytes, path: str) -> None:
    image = InferenceClient(model=f"{server}/{path}").text_to_image(PROMPT, seed=7)
    data = io.BytesIO()
    image.save(data, "PNG")
    assert same(data.getvalue(), picture)


def test_every_setting_that_it_has_is_honoured(server: str) -> None:
    image = InferenceClient(model=f"{server}/hf/tiny-sd3").text_to_image(
        PROMPT,
        negative_prompt="blur",
        width=192,
        height=128,
        num_inference_steps=4,
        guidance_scale=3,
        seed=1,
        extra_body={"output_format": "jpeg"},
    )
    assert (image.size, image.format) == ((192, 128), "JPEG")


@pytest.mark.parametrize(
    ("model", "extra", "status", "said"),
    [
        ("tiny-sd3", {"steps_": 4}, 422, "unknown parameter 'steps_'; did you mean 'steps'?"),
        ("tiny-sd3", {"n": 2}, 422, "n is 2; the answer is the bytes of one image"),
        ("tiny-sd3", {"width": 1000, "height": 128}, 422, "width 1000 is outside 64 to 512 pixels"),
        ("sdxl", {}, 404, "Not Found"),
    ],
)
def test_errors(server: str, model: str, extra: dict[str, int], status: int, said: str) -> None:
    with pytest.raises(HfHubHTTPError) as caught:
        InferenceClient(model=f"{server}/hf/{model}").text_to_image(PROMPT, extra_body=extra)
    assert caught.value.response.status_code == status
    assert said in str(caught.value)
