"""OpenAI's own client, unmodified."""

import base64
import io
from collections.abc import Iterator

import httpx
import openai
import pytest
from openai.types import ImagesResponse
from PIL import Image

from tests.clients.conftest import PROMPT, newest
from tests.clients.pictures import difference, same
from tests.processes import wait_until

pytestmark = pytest.mark.timeout(300)  # three models may take long to load where others work too

MODEL = "tiny-flux-schnell"
SEEDED = {"seed": 7}
SLOW = {"num_inference_steps": 100, "size": "512x512"}  # half a minute: never waited for


@pytest.fixture
def client(server: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server}/v1", api_key="none", timeout=60) as client:
        yield client


def decoded(response: ImagesResponse) -> list[bytes]:
    assert response.data is not None
    return [base64.b64decode(image.b64_json or "") for image in response.data]


def urls(response: ImagesResponse) -> list[str | None]:
    assert response.data is not None
    return [image.url for image in response.data]


def test_both_url_and_bytes_unless_one_is_asked_for(client: openai.OpenAI, picture: bytes) -> None:
    both = client.images.generate(model=MODEL, prompt=PROMPT, extra_body=SEEDED)
    [data], [url] = decoded(both), urls(both)
    assert same(data, picture)
    assert httpx.get(str(url)).content == data
    assert isinstance(both.created, int)
    assert (both.size, both.output_format, both.background) == ("128x128", "png", "opaque")

    only_url = client.images.generate(model=MODEL, prompt=PROMPT, response_format="url", extra_body=SEEDED)
    assert only_url.data is not None
    assert only_url.data[0].b64_json is None
    assert same(httpx.get(str(only_url.data[0].url)).content, picture)
    assert "b64_json" not in only_url.data[0].model_fields_set

    only_bytes = client.images.generate(model=MODEL, prompt=PROMPT, response_format="b64_json", extra_body=SEEDED)
    assert urls(only_bytes) == [None]
    assert same(decoded(only_bytes)[0], picture)


def test_several_images(client: openai.OpenAI, picture: bytes) -> None:
    response = client.images.generate(model=MODEL, prompt=PROMPT, n=3, extra_body=SEEDED)
    pictures = decoded(response)
    assert same(pictures[0], picture)
    assert len(set(pictures)) == len(set(urls(response))) == 3


def test_words_that_mean_nothing_here_are_ignored(client: openai.OpenAI, picture: bytes) -> None:
    response = client.images.generate(
        model=MODEL,
        prompt=PROMPT,
        size="auto",
        quality="high",
        style="vivid",
        user="someone",
        moderation="low",
        background="auto",
        extra_body={**SEEDED, "answer_in": "haste"},
    )
    assert same(decoded(response)[0], picture)


def test_formats_and_our_own_fields(client: openai.OpenAI) -> None:
    response = client.images.generate(
        model=MODEL,
        prompt=PROMPT,
        size="192x128",
        output_format="webp",
        output_compression=60,
        extra_body={"steps": 2, "guidance_scale": 3.5},
    )
    with Image.open(io.BytesIO(decoded(response)[0])) as image:
        assert (image.format, image.size) == ("WEBP", (192, 128))
    assert (response.output_format, response.size) == ("webp", "192x128")
    assert [warning["code"] for warning in response.to_dict()["warnings"]] == ["guidance_ignored"]  # type: ignore[attr-defined]


def test_a_stream_shows_how_it_develops(client: openai.OpenAI) -> None:
    model, settings = "tiny-flux-dev", {"num_inference_steps": 100, "seed": 3}
    stream = client.images.generate(model=model, prompt=PROMPT, n=2, stream=True, partial_images=3, extra_body=settings)
    events = [(event.type, event.to_dict()["index"], event) for event in stream]
    completed = [event for kind, _, event in events if kind == "image_generation.completed"]
    previews = [event for kind, _, event in events if kind == "image_generation.partial_image"]
    assert [kind for kind, *_ in events[-2:]] == ["image_generation.completed"] * 2
    assert [index for _, index, _ in events[-2:]] == [0, 1]
    plain = decoded(client.images.generate(model=model, prompt=PROMPT, n=2, extra_body=settings))
    final = [base64.b64decode(event.b64_json) for event in completed]
    for index in (0, 1):
        own = [event for event in previews if event.to_dict()["index"] == index]
        assert 1 <= len(own) <= 3
        assert [event.to_dict()["partial_image_index"] for event in own] == list(range(len(own)))
        assert len({event.b64_json for event in own}) == len(own)
        assert {event.output_format for event in own} == {"jpeg"}
        assert same(final[index], plain[index])
        assert difference(base64.b64decode(own[0].b64_json), final[index]) > 2


def test_a_stream_without_previews(client: openai.OpenAI, picture: bytes) -> None:
    [event] = client.images.generate(model=MODEL, prompt=PROMPT, stream=True, extra_body=SEEDED)
    assert event.type == "image_generation.completed"
    assert same(base64.b64decode(event.b64_json), picture)


@pytest.mark.parametrize(
    ("model", "fields", "kind", "status", "code", "param"),
    [
        ("dall-e-3", {}, openai.NotFoundError, 404, "model_not_found", "model"),
        (MODEL, {"size": "1000x1000"}, openai.UnprocessableEntityError, 422, "invalid_size", "size"),
        (MODEL, {"n": 11}, openai.UnprocessableEntityError, 422, "invalid_n", "n"),
        (MODEL, {"seed": -1}, openai.UnprocessableEntityError, 422, "invalid_seed", "seed"),
        (MODEL, {"stream": True, "n": 11}, openai.UnprocessableEntityError, 422, "invalid_n", "n"),
    ],
)
def test_errors(
    client: openai.OpenAI,
    model: str,
    fields: dict[str, object],
    kind: type[openai.APIStatusError],
    status: int,
    code: str,
    param: str,
) -> None:
    with pytest.raises(kind) as caught:
        client.images.generate(model=model, prompt=PROMPT, extra_body=fields)
    assert (caught.value.status_code, caught.value.code, caught.value.param) == (status, code, param)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.response.headers["x-should-retry"] == "false"


def test_a_client_that_gives_up_takes_its_job_with_it(client: openai.OpenAI, server: str) -> None:
    impatient = client.with_options(timeout=0.5, max_retries=0)
    with pytest.raises(openai.APITimeoutError):
        impatient.images.generate(model="tiny-sd3", prompt=PROMPT, extra_body=SLOW)
    assert newest(server)["model"] == "tiny-sd3"
    assert wait_until(lambda: newest(server)["status"] == "canceled", 10), newest(server)


def test_a_stream_that_is_closed_takes_its_job_with_it(client: openai.OpenAI, server: str) -> None:
    stream = client.images.generate(
        model="tiny-flux-dev", prompt=PROMPT, stream=True, partial_images=1, extra_body=SLOW
    )
    assert wait_until(lambda: newest(server)["model"] == "tiny-flux-dev", 10)
    stream.close()
    assert wait_until(lambda: newest(server)["status"] == "canceled", 10), newest(server)


def test_a_job_with_an_idempotency_key_goes_on(client: openai.OpenAI, server: str) -> None:
    impatient = client.with_options(timeout=0.5, max_retries=0)
    with pytest.raises(openai.APITimeoutError):
        impatient.images.generate(
            model="tiny-flux-dev",
            prompt=PROMPT,
            extra_body={"num_inference_steps": 100, "size": "256x256"},
            extra_headers={"Idempotency-Key": "1"},
        )
    assert wait_until(lambda: newest(server)["status"] == "completed", 60), newest(server)
