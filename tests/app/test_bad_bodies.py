"""Bodies that are no submission at all: each is refused with the one error body, and changes nothing."""

import httpx
import pytest
from redis.asyncio import Redis

from tests.app.gateway import ANY_JOB, Gateway, check_error

JSON = {"content-type": "application/json"}


def deep(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


@pytest.mark.parametrize(
    ("content", "answer", "said"),
    [
        pytest.param(b"", "422 invalid_body", "must be a JSON object", id="nothing"),
        pytest.param(b"null", "422 invalid_body", "must be a JSON object", id="null"),
        pytest.param(b"[]", "422 invalid_body", "must be a JSON object", id="an array"),
        pytest.param(b'[{"prompt": "x"}]', "422 invalid_body", "must be a JSON object", id="an array of objects"),
        pytest.param(b'"a ring"', "422 invalid_body", "must be a JSON object", id="a string"),
        pytest.param(b"1", "422 invalid_body", "must be a JSON object", id="a number"),
        pytest.param(b"true", "422 invalid_body", "must be a JSON object", id="a boolean"),
        pytest.param(b"NaN", "422 invalid_body", "must be a JSON object", id="NaN"),
        pytest.param(b"a ring", "400 invalid_json", "character 0", id="words"),
        pytest.param(b"{", "400 invalid_json", "character 1", id="an open brace"),
        pytest.param(b"{'prompt': 'x'}", "400 invalid_json", "character 1", id="single quotes"),
        pytest.param(b'{"prompt": "x",}', "400 invalid_json", "character 15", id="a comma too many"),
        pytest.param(b'{"prompt": "x"} {}', "400 invalid_json", "character 16", id="two objects"),
        pytest.param(b'{"prompt": "x"', "400 invalid_json", "character 14", id="half an object"),
        pytest.param(b'{"prompt": "a\nb"}', "400 invalid_json", "character 13", id="a raw line break"),
        pytest.param(b'{"prompt": "\\u12"}', "400 invalid_json", "character 1", id="half an escape"),
        pytest.param(b'{"prompt": "x"}\0', "400 invalid_json", "character 15", id="a NUL behind it"),
        pytest.param(b'{"prompt": "\xff"}', "400 invalid_body", "not UTF-8", id="invalid UTF-8"),
        pytest.param(b"\xff\xfe\xfd", "400 invalid_body", "not UTF-8", id="half of UTF-16"),
        pytest.param(
            b'{"prompt": "x", "seed": ' + b"9" * 5000 + b"}", "400 invalid_body", "a number", id="5000 digits"
        ),
        pytest.param(b"[" * 100_000, "400 invalid_body", "nested too deep", id="100k open brackets"),
        pytest.param(deep(100_000), "400 invalid_body", "nested too deep", id="100k brackets"),
        pytest.param(b'{"a":' * 40_000 + b"1" + b"}" * 40_000, "400 invalid_body", "nested too deep", id="40k braces"),
        pytest.param(
            b'{"prompt": "x", "guidance_scale": 1e400}', "422 invalid_guidance_scale", "finite number", id="1e400"
        ),
        pytest.param(b'{"prompt": "\xed\xa0\x80"}', "422 invalid_prompt", "character 0", id="a surrogate in UTF-8"),
    ],
)
async def test_a_bad_body_is_refused(gateway: Gateway, valkey: Redis, content: bytes, answer: str, said: str) -> None:
    body = check_error(await gateway.client.post("/v1/images", content=content, headers=JSON))
    assert f"{body['status']} {body['code']}" == answer
    assert said in body["detail"]
    assert not await valkey.exists(ANY_JOB)


async def test_no_depth_of_nesting_breaks_it(gateway: Gateway, valkey: Redis) -> None:
    # Between what json.loads takes and what it refuses lies a depth at which comparing the two aliases would fail.
    statuses = set()
    for levels in range(800, 1000):
        content = b'{"prompt": "x", "n": %s, "num_images": %s}' % (deep(levels), deep(levels))
        response = await gateway.client.post("/v1/images", content=content, headers=JSON)
        statuses.add(response.status_code)
    assert statuses == {422, 400}
    assert not await valkey.exists(ANY_JOB)


NOT_JSON: list[str | None] = [
    "text/plain",
    "text/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/octet-stream",
    "json",
    "/",
    "",
    "\xe9\xff",
    "application/json-seq",
    None,
]


async def test_a_body_that_is_not_said_to_be_json_is_refused(gateway: Gateway, valkey: Redis) -> None:
    for content_type in NOT_JSON:
        headers = {} if content_type is None else {b"content-type": content_type.encode("latin-1")}
        response = await gateway.client.post("/v1/images", content=b'{"prompt": "x"}', headers=httpx.Headers(headers))
        body = check_error(response)
        assert (body["status"], body["code"]) == (422, "invalid_body")
        assert body["detail"] == "send a JSON object, with Content-Type: application/json"
        assert not await valkey.exists(ANY_JOB)


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "Application/JSON", "application/vnd.darkroom+json"]
)
async def test_json_by_another_name_is_read(gateway: Gateway, content_type: str) -> None:
    headers = {"content-type": content_type}
    response = await gateway.client.post("/v1/images", content=b'{"prompt": "x"}', headers=headers)
    assert response.status_code == 202
    body = check_error(await gateway.client.post("/v1/images", content=b"[]", headers=headers))
    assert body["detail"] == "the body must be a JSON object"
