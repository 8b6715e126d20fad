"""What a submission may not be. Each is refused with the one error body, and changes nothing."""

from typing import Any

import pytest
from redis.asyncio import Redis

from app.api.schemas import ALIASES, MAX_INT, ImageRequest
from tests.app.gateway import ANY_JOB, Gateway, check_error, running

OVER = MAX_INT + 1
HUGE = 10**400
NAN, INFINITY = float("nan"), float("inf")


# By status, code and param: the fields that are sent, over a good prompt and model, and a part of the message.
BAD_FIELDS: dict[str, list[tuple[dict[str, Any], str]]] = {
    "422 invalid_prompt prompt": [
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": " \t\r\n\u3000"}, "prompt is empty"),
        ({"prompt": None}, "valid string"),
        ({"prompt": 1}, "valid string"),
        ({"prompt": True}, "valid string"),
        ({"prompt": ["a ring"]}, "valid string"),
        ({"prompt": {"text": "a ring"}}, "valid string"),
        ({"prompt": "x" * 10_001}, "prompt has 10001 characters; the limit is 10000"),
        ({"prompt": "a\0b"}, "character 1 is a NUL or half of a surrogate pair"),
        ({"prompt": "ring \ud800"}, "character 5 is a NUL or half of a surrogate pair"),
        ({"prompt": "\udfff"}, "character 0"),
    ],
    "422 invalid_negative_prompt negative_prompt": [
        ({"negative_prompt": 0}, "valid string"),
        ({"negative_prompt": "\0"}, "character 0"),
        ({"negative_prompt": "\udc00"}, "character 0"),
        ({"negative_prompt": "x" * 10_001}, "negative_prompt has 10001 characters"),
    ],
    "404 model_not_found model": [
        ({"model": "tiny-sd4"}, "there is no model 'tiny-sd4' here; known: tiny-flux-schnell, tiny-flux-dev, tiny-sd3"),
        ({"model": ""}, "there is no model ''"),
        ({"model": "TINY-SD3"}, "known: "),
        ({"model": "tiny-sd3\n"}, r"there is no model 'tiny-sd3\n'"),
        ({"model": "\ud800"}, "known: "),
        ({"model": "x" * 100_000}, "known: "),
    ],
    "422 invalid_model model": [
        ({"model": 1}, "valid string"),
        ({"model": []}, "valid string"),
    ],
    "422 invalid_size width": [
        ({"width": 100, "height": 128}, "width 100 is not a multiple of 16; try 96 or 112"),
        ({"width": 100, "height": 100}, "width 100 is not a multiple of 16; try 96 or 112; height 100"),
        ({"width": 48, "height": 128}, "width 48 is outside 64 to 512 pixels"),
        ({"width": OVER - 1, "height": 128}, "outside 64 to 512"),
        ({"width": HUGE, "height": 128}, "less than or equal to"),
        ({"width": 0, "height": 128}, "greater than or equal to 1"),
        ({"width": -128, "height": 128}, "greater than or equal to 1"),
        ({"width": "128", "height": 128}, "valid integer"),
        ({"width": 128.0, "height": 128}, "valid integer"),
        ({"width": True, "height": 128}, "valid integer"),
        ({"width": NAN, "height": 128}, "valid integer"),
        ({"height": 128}, "width and height go together"),
    ],
    "422 invalid_size height": [
        ({"width": 128, "height": 528}, "height 528 is outside 64 to 512 pixels"),
        ({"width": 128, "height": [128]}, "valid integer"),
        ({"width": 128}, "width and height go together"),
        ({"width": 128, "height": None}, "width and height go together"),
    ],
    "422 invalid_size size": [
        ({"size": "100x128"}, "width 100 is not a multiple of 16; try 96 or 112"),
        ({"size": "0x0"}, "width 0 is outside"),
        ({"size": "99999x99999"}, "width 99999 is outside"),
        ({"size": "100000x128"}, "write it as WIDTHxHEIGHT"),
        ({"size": "128"}, "size is '128'; write it as WIDTHxHEIGHT, like 1024x768"),
        ({"size": "128*128"}, "write it as WIDTHxHEIGHT"),
        ({"size": "128x128x128"}, "write it as WIDTHxHEIGHT"),
        ({"size": " 128x128"}, "write it as WIDTHxHEIGHT"),
        ({"size": "128x128\n"}, "write it as WIDTHxHEIGHT"),
        ({"size": "-128x128"}, "write it as WIDTHxHEIGHT"),
        ({"size": "1e2x128"}, "write it as WIDTHxHEIGHT"),
        ({"size": "\uff11\uff12\uff18x\uff11\uff12\uff18"}, "write it as WIDTHxHEIGHT"),
        ({"size": "\u00b2x\u00b2"}, "write it as WIDTHxHEIGHT"),
        ({"size": "auto"}, "write it as WIDTHxHEIGHT"),
        ({"size": ""}, "write it as WIDTHxHEIGHT"),
        ({"size": "\ud800"}, "write it as WIDTHxHEIGHT"),
        ({"size": "9" * 100_000}, "write it as WIDTHxHEIGHT"),
        ({"size": [128, 128]}, "valid string"),
        ({"size": "128x128", "width": 128, "height": 128}, "either size, or width and height"),
        ({"size": "128x128", "height": 128}, "either size, or width and height"),
        ({"model": "flux-dev", "size": "2048x2048"}, "2048x2048 is 4194304 pixels; the limit is 2097152"),
        ({"model": "flux-dev", "width": 2048, "height": 1040}, "2048x1040 is 2129920 pixels; the limit is 2097152"),
        ({"size": "128x128", "image_size": "256x256"}, "size is given twice, with different values"),
    ],
    "422 invalid_num_inference_steps num_inference_steps": [
        ({"num_inference_steps": 101}, "num_inference_steps is 101; tiny-sd3 takes 1 to 100"),
        ({"num_inference_steps": MAX_INT}, f"num_inference_steps is {MAX_INT}; tiny-sd3 takes 1 to 100"),
        ({"num_inference_steps": 0}, "greater than or equal to 1"),
        ({"num_inference_steps": -1}, "greater than or equal to 1"),
        ({"num_inference_steps": HUGE}, "less than or equal to"),
        ({"num_inference_steps": -HUGE}, "greater than or equal to 1"),
        ({"num_inference_steps": "20"}, "valid integer"),
        ({"num_inference_steps": 20.0}, "valid integer"),
        ({"num_inference_steps": True}, "valid integer"),
        ({"num_inference_steps": INFINITY}, "valid integer"),
        ({"steps": "20"}, "valid integer"),
        ({"steps": 20, "num_inference_steps": 21}, "num_inference_steps is given twice, with different values"),
        ({"steps": [20], "num_inference_steps": [20]}, "num_inference_steps is given twice"),
    ],
    "422 invalid_guidance_scale guidance_scale": [
        ({"guidance_scale": -0.001}, "guidance_scale is -0.001; tiny-sd3 takes 0 to 100"),
        ({"guidance_scale": 100.000001}, "guidance_scale is 100.000001; tiny-sd3 takes 0 to 100"),
        ({"guidance_scale": 1e300}, "guidance_scale is 1e+300"),
        ({"guidance_scale": NAN}, "finite number"),
        ({"guidance_scale": INFINITY}, "finite number"),
        ({"guidance_scale": -INFINITY}, "finite number"),
        ({"guidance_scale": HUGE}, "valid number"),
        ({"guidance_scale": True}, "valid number"),
        ({"guidance_scale": "3.5"}, "valid number"),
        ({"guidance": 3, "cfg_scale": 4}, "guidance_scale is given twice"),
        ({"guidance": NAN, "cfg_scale": NAN}, "guidance_scale is given twice"),
    ],
    "422 invalid_true_cfg_scale true_cfg_scale": [
        ({"true_cfg_scale": 2, "negative_prompt": ""}, "tiny-sd3 takes classifier-free guidance as guidance_scale"),
        ({"true_cfg_scale": 2, "model": "tiny-flux-dev"}, "above 1 needs a negative_prompt"),
        ({"true_cfg_scale": -1}, "tiny-sd3 takes 0 to 100"),
        ({"true_cfg_scale": NAN}, "finite number"),
        ({"true_cfg_scale": False}, "valid number"),
    ],
    "422 invalid_max_sequence_length max_sequence_length": [
        ({"max_sequence_length": 257}, "max_sequence_length is 257; tiny-sd3 takes 1 to 256"),
        ({"max_sequence_length": 0}, "greater than or equal to 1"),
        ({"max_sequence_length": HUGE}, "less than or equal to"),
        ({"max_sequence_length": "128"}, "valid integer"),
    ],
    "422 invalid_seed seed": [
        ({"seed": -1}, "greater than or equal to 0"),
        ({"seed": OVER}, "less than or equal to"),
        ({"seed": HUGE}, "less than or equal to"),
        ({"seed": 1.5}, "valid integer"),
        ({"seed": "1"}, "valid integer"),
        ({"seed": True}, "valid integer"),
        ({"seed": NAN}, "valid integer"),
        ({"seed": MAX_INT, "n": 2}, f"the last image's seed would be above {MAX_INT}"),
        ({"seed": MAX_INT - 8, "n": 10}, f"the last image's seed would be above {MAX_INT}"),
    ],
    "422 invalid_n n": [
        ({"n": 0}, "greater than or equal to 1"),
        ({"n": -1}, "greater than or equal to 1"),
        ({"n": 11}, "n is 11; the limit is 10"),
        ({"n": MAX_INT}, f"n is {MAX_INT}; the limit is 10"),
        ({"n": HUGE}, "less than or equal to"),
        ({"n": None}, "valid integer"),
        ({"n": 1.0}, "valid integer"),
        ({"n": True}, "valid integer"),
        ({"num_images": 2, "num_outputs": 3}, "n is given twice, with different values"),
        ({"n": 2, "num_images_per_prompt": "2"}, "n is given twice, with different values"),
    ],
    "422 invalid_output_format output_format": [
        ({"output_format": "gif"}, "'png', 'jpeg' or 'webp'"),
        ({"output_format": "PNG"}, "'png', 'jpeg' or 'webp'"),
        ({"output_format": None}, "'png', 'jpeg' or 'webp'"),
        ({"output_format": ["png"]}, "'png', 'jpeg' or 'webp'"),
    ],
    "422 invalid_output_compression output_compression": [
        ({"output_compression": 50}, "png loses nothing; ask for jpeg or webp"),
        ({"output_format": "jpeg", "output_compression": 101}, "less than or equal to 100"),
        ({"output_format": "jpeg", "output_compression": -1}, "greater than or equal to 0"),
        ({"output_format": "webp", "output_compression": 50.0}, "valid integer"),
    ],
    "422 invalid_priority priority": [
        ({"priority": "urgent"}, "'low', 'normal' or 'high'"),
        ({"priority": "HIGH"}, "'low', 'normal' or 'high'"),
        ({"priority": ""}, "'low', 'normal' or 'high'"),
        ({"priority": None}, "'low', 'normal' or 'high'"),
        ({"priority": 1}, "'low', 'normal' or 'high'"),
        ({"priority": ["high"]}, "'low', 'normal' or 'high'"),
    ],
    "422 invalid_deadline_seconds deadline_seconds": [
        ({"deadline_seconds": 0}, "greater than 0"),
        ({"deadline_seconds": -0.0}, "greater than 0"),
        ({"deadline_seconds": -1}, "greater than 0"),
        ({"deadline_seconds": 86_400.5}, "less than or equal to 86400"),
        ({"deadline_seconds": 1e300}, "less than or equal to 86400"),
        ({"deadline_seconds": NAN}, "finite number"),
        ({"deadline_seconds": INFINITY}, "finite number"),
        ({"deadline_seconds": HUGE}, "valid number"),
        ({"deadline_seconds": True}, "valid number"),
        ({"deadline_seconds": "60"}, "valid number"),
        ({"deadline_seconds": "2026-01-01T00:00:00Z"}, "valid number"),
    ],
    "422 unknown_parameter deadline": [
        ({"deadline": 60}, "unknown parameter 'deadline'; did you mean 'deadline_seconds'?")
    ],
    "422 invalid_webhook_url webhook_url": [
        ({"webhook_url": "https://hooks.test/"}, "sends no webhooks"),
        ({"webhook_url": 7}, "valid string"),
    ],
    "422 invalid_webhook_events webhook_events": [
        ({"webhook_events": ["completed"]}, "goes with a webhook_url"),
        ({"webhook_url": "https://hooks.test/", "webhook_events": ["painted"]}, "'completed', 'failed' or 'canceled'"),
    ],
    "422 invalid_metadata metadata": [
        ({"metadata": None}, "valid dictionary"),
        ({"metadata": []}, "valid dictionary"),
        ({"metadata": "a=b"}, "valid dictionary"),
        ({"metadata": {str(i): "" for i in range(17)}}, "at most 16"),
        ({"metadata": {"": "x"}}, "at least 1 character"),
        ({"metadata": {"k" * 65: "x"}}, "at most 64 characters"),
        ({"metadata": {"k": "x" * 513}}, "at most 512 characters"),
        ({"metadata": {"k": 1}}, "valid string"),
        ({"metadata": {"k": None}}, "valid string"),
        ({"metadata": {"k": {}}}, "valid string"),
        ({"metadata": {"\ud800": "x"}}, "valid string"),
        ({"metadata": {"k": "\ud800"}}, "valid string"),
        ({"metadata": {"\0": "x"}}, "character 0"),
        ({"metadata": {"k": "\0"}}, "character 0"),
    ],
    "422 unknown_parameter stepps": [({"stepps": 20}, "unknown parameter 'stepps'; did you mean 'steps'?")],
    "422 unknown_parameter promt": [({"promt": "x"}, "unknown parameter 'promt'; did you mean 'prompt'?")],
    "422 unknown_parameter Seed": [({"Seed": 1}, "unknown parameter 'Seed'; did you mean 'seed'?")],
    "422 unknown_parameter tenant": [({"tenant": "other"}, "unknown parameter 'tenant'")],
    "422 unknown_parameter id": [({"id": "img_" + "0" * 32}, "unknown parameter 'id'")],
    "422 unknown_parameter xyzzy": [({"xyzzy": 1}, "unknown parameter 'xyzzy'")],
    r"422 unknown_parameter \ud800": [({"\ud800": 1}, "unknown parameter")],
    "422 unknown_parameter \0": [({"\0": 1}, r"unknown parameter '\x00'")],
    "422 unknown_parameter {message}": [({"{message}": 1}, "unknown parameter '{message}'")],
    f"422 unknown_parameter {'k' * 64}": [({"k" * 100_000: 1}, "unknown parameter 'kkk")],
}


@pytest.mark.parametrize("answer", BAD_FIELDS, ids=lambda answer: ascii(answer).strip("'")[:50])
async def test_a_bad_field_is_refused_by_name(gateway: Gateway, valkey: Redis, answer: str) -> None:
    for fields, said in BAD_FIELDS[answer]:
        body = check_error(await gateway.post({"prompt": "a ring", "model": "tiny-sd3"} | fields))
        assert f"{body['status']} {body['code']} {body['param']}" == answer, fields
        assert said in body["detail"], fields
        assert not await valkey.exists(ANY_JOB), fields


async def test_a_guess_is_made_only_where_it_is_close(gateway: Gateway) -> None:
    assert "did you mean" not in check_error(await gateway.post({"prompt": "a ring", "xyzzy": 1}))["detail"]


@pytest.mark.parametrize("fields", [{}, {"model": "tiny-sd3"}, {"negative_prompt": "a ring"}])
async def test_a_prompt_is_required(gateway: Gateway, valkey: Redis, fields: dict[str, Any]) -> None:
    body = check_error(await gateway.post(fields))
    assert (body["status"], body["code"], body["param"]) == (422, "invalid_prompt", "prompt")
    assert body["detail"] == "prompt is required"
    assert not await valkey.exists(ANY_JOB)


ODD_VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**31, MAX_INT, OVER, HUGE, -HUGE, 0.5, -0.0, 1e308, 5e-324, NAN, INFINITY),
    *("", " ", "\0", "\ud800", "1", "128x128", "x" * 20_000, "{}", "%s%n", "\u202e", "\N{CAT FACE}"),
    *([], [1], [[]], {}, {"a": "b"}, {"a": {"b": []}}, {"": ""}, {"\ud800": "\ud800"}),
]


@pytest.mark.parametrize("name", [*ImageRequest.model_fields, *ALIASES])
async def test_no_value_of_any_field_breaks_it(gateway: Gateway, name: str) -> None:
    for value in ODD_VALUES:
        response = await gateway.post({"prompt": "a ring"} | {name: value})
        assert response.status_code in (202, 404, 422), (name, value)


async def test_caps_come_from_the_settings(no_darkroom_environment: None, valkey: Redis, valkey_url: str) -> None:
    async with running(valkey_url, max_prompt_chars=5, max_images_per_request=2) as gateway:
        assert "the limit is 5" in check_error(await gateway.post({"prompt": "a ring"}))["detail"]
        assert "the limit is 2" in check_error(await gateway.post({"prompt": "ring", "n": 3}))["detail"]
        assert (await gateway.post({"prompt": "ring", "n": 2})).status_code == 202


def test_the_table_speaks_of_every_field() -> None:
    params = {answer.split(" ")[2] for answer in BAD_FIELDS}
    assert set(ImageRequest.model_fields) <= params
