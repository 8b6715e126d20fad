"""The OpenAPI document says it all, and only what is true."""

import json
from typing import Any

import pytest

from app.api.gatekeeper import OPEN_PATHS
from app.api.schemas import ALIASES, ImageRequest
from app.errors import ErrorBody, NotFoundError, error_response
from app.main import create_app
from app.settings import GatewaySettings
from tests.app.gateway import ERROR_BODY_KEYS

ERROR_SCHEMA = {"$ref": "#/components/schemas/ErrorBody"}

KEY_ANSWERS = {"401", "403"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(GatewaySettings(store_url="memory://")).openapi()


@pytest.fixture(scope="module")
def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_these_are_the_routes_and_their_answers(operations: dict[str, dict[str, Any]]) -> None:
    # That the answers given are among them is checked with every answer of every test: gateway.check_answer.
    statuses = {
        route: " ".join(sorted(set(operation["responses"]) - KEY_ANSWERS)) for route, operation in operations.items()
    }
    assert statuses == {
        "POST /v1/images": "200 202 400 404 408 413 422 429 503 default",
        "GET /v1/images": "200 422 503 default",
        "GET /v1/images/{job_id}": "200 304 404 408 422 503 default",
        "DELETE /v1/images/{job_id}": "204 404 409 422 503 default",
        "GET /v1/images/{job_id}/content": "200 202 304 404 409 410 422 503 default",
        "GET /v1/images/{job_id}/events": "200 204 404 422 503 default",
        "HEAD /v1/images/{job_id}/content": "200 202 304 404 409 410 422 503 default",
        "GET /v1/images/{job_id}/preview": "200 202 404 410 422 503 default",
        "POST /v1/images/{job_id}/cancel": "200 404 422 503 default",
        "POST /v1/images/generations": "200 400 404 408 409 410 413 422 429 500 503 504 default",
        "POST /hf/{model}": "200 400 404 408 409 410 413 422 429 500 503 504 default",
        "POST /sdapi/v1/txt2img": "200 400 404 408 409 410 413 422 429 500 503 504 default",
        "GET /sdapi/v1/options": "200 422 503 default",
        "POST /sdapi/v1/options": "200 400 404 413 422 503 default",
        "GET /sdapi/v1/sd-models": "200 default",
        "GET /sdapi/v1/samplers": "200 default",
        "GET /sdapi/v1/progress": "200 422 503 default",
        "POST /sdapi/v1/interrupt": "200 422 503 default",
        "GET /v1/models": "200 503 default",
        "GET /livez": "200 default",
        "GET /readyz": "200 503 default",
        "GET /metrics": "200 default",
    }


def test_all_but_the_open_routes_document_what_is_said_without_a_key(operations: dict[str, dict[str, Any]]) -> None:
    for route, operation in operations.items():
        is_open = route.split()[1] in OPEN_PATHS
        assert KEY_ANSWERS & set(operation["responses"]) == (set() if is_open else KEY_ANSWERS), route
        of_nobody = ("GET /v1/models", "GET /sdapi/v1/sd-models", "GET /sdapi/v1/samplers", "GET /metrics")
        asks = route not in of_nobody and not is_open
        assert ("tenant" in {parameter["name"] for parameter in operation.get("parameters", [])}) is asks, route


def test_every_error_has_the_one_body(document: dict[str, Any], operations: dict[str, dict[str, Any]]) -> None:
    for route, operation in operations.items():
        for status, answer in operation["responses"].items():
            if status == "default" or int(status) >= 400:
                assert answer["content"] == {"application/json": {"schema": ERROR_SCHEMA}}, (route, status)
    assert "ValidationError" not in json.dumps(document)
    schema = document["components"]["schemas"]["ErrorBody"]
    assert set(schema["properties"]) == set(schema["required"]) == ERROR_BODY_KEYS
    example = {name: field["examples"][0] for name, field in schema["properties"].items() if "examples" in field}
    error = NotFoundError("model_not_found", "there is no such model", param="model")
    sent = json.loads(bytes(error_response(error, "request-1").body))
    ErrorBody.model_validate(sent | example, strict=True)


def test_a_wait_is_documented_wherever_it_is_asked_for(operations: dict[str, dict[str, Any]]) -> None:
    for route, operation in operations.items():
        for status, answer in operation["responses"].items():
            waits = status in ("202", "429", "503") or (route, status) == ("DELETE /v1/images/{job_id}", "409")
            assert ("Retry-After" in answer.get("headers", {})) is waits, (route, status)
    assert "Location" in operations["POST /v1/images"]["responses"]["202"]["headers"]
    for status in ("200", "202"):
        assert "Idempotency-Replayed" in operations["POST /v1/images"]["responses"][status]["headers"]
    for path in ("/v1/images/{job_id}", "/v1/images/{job_id}/content"):
        assert "ETag" in operations[f"GET {path}"]["responses"]["200"]["headers"]


def test_every_route_and_every_parameter_is_described(operations: dict[str, dict[str, Any]]) -> None:
    for route, operation in operations.items():
        assert operation["summary"], route
        assert operation["tags"], route
        for parameter in operation.get("parameters", []):
            assert parameter["description"], (route, parameter["name"])


def test_a_successful_answer_has_a_schema(operations: dict[str, dict[str, Any]]) -> None:
    schemas = {
        route: _name(operation["responses"][status]["content"]["application/json"]["schema"])
        for route, operation in operations.items()
        for status in ("200", "202")
        if "application/json" in operation["responses"].get(status, {}).get("content", {})
    }
    assert schemas == {
        "POST /v1/images": "ImageJobView",
        "GET /v1/images": "ImageJobList",
        "GET /v1/images/{job_id}": "ImageJobView",
        "POST /v1/images/{job_id}/cancel": "ImageJobView",
        "POST /v1/images/generations": "OpenAIImages",
        "POST /sdapi/v1/txt2img": "Txt2Img",
        "GET /sdapi/v1/options": "Options",
        "POST /sdapi/v1/options": "Options",
        "GET /sdapi/v1/sd-models": "SDModel[]",
        "GET /sdapi/v1/samplers": "Sampler[]",
        "GET /sdapi/v1/progress": "Progress",
        "POST /sdapi/v1/interrupt": "object",
        "GET /v1/models": "ModelList",
        "GET /livez": "Alive",
        "GET /readyz": "Ready",
    }
    pictures = operations["GET /v1/images/{job_id}/content"]["responses"]["200"]["content"]
    assert set(pictures) == {"image/png", "image/jpeg", "image/webp"}
    assert set(operations["GET /v1/images/{job_id}/preview"]["responses"]["200"]["content"]) == {"image/jpeg"}


def _name(schema: dict[str, Any]) -> str:
    if "items" in schema:
        return f"{_name(schema['items'])}[]"
    return str(schema["$ref"].rpartition("/")[2] if "$ref" in schema else schema["type"])


def test_the_request_is_closed_and_described(document: dict[str, Any]) -> None:
    schema = document["components"]["schemas"]["ImageRequest"]
    assert schema["required"] == ["prompt"]
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == set(ImageRequest.model_fields)
    for name, field in schema["properties"].items():
        assert field["description"], name


def test_the_examples_are_good_requests(document: dict[str, Any]) -> None:
    examples = document["components"]["schemas"]["ImageRequest"]["examples"]
    assert examples
    for example in examples:
        assert ImageRequest.model_validate_json(json.dumps(example)).model_dump().items() >= example.items()


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_an_alias_is_mentioned_where_it_leads(document: dict[str, Any], alias: str, name: str) -> None:
    schema = document["components"]["schemas"]["ImageRequest"]
    assert alias not in schema["properties"]
    assert f"`{alias}`" in schema["properties"][name]["description"]
