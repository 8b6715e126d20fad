"""schemathesis asks every route for what the OpenAPI document allows, and for what it does not, as whoever may ask.

A real gateway, Valkey and worker. DARKROOM_FUZZ_EXAMPLES asks for more than a test run has time for.
"""

import asyncio
import collections
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import CHECKS
from schemathesis.generation import GenerationMode

from app.access.key import DEFAULT_TENANT, Role
from app.access.key_cache import REMEMBER_S
from app.access.key_store import KeyStore
from app.api.gatekeeper import OPEN_PATHS
from app.jobs.scripts import connect
from app.main import create_app
from app.settings import GatewaySettings
from tests.app.access.keys import make_key
from tests.app.gateway import check_error, documented_statuses
from tests.integration.servers import serving
from tests.system.processes import Client, gateway, null_worker

EXAMPLES = int(os.environ.get("DARKROOM_FUZZ_EXAMPLES", "9"))
DRAWN, WAITING = "tiny-flux-schnell", "tiny-sd3"  # models with a worker, and without
ABSENT = "img_" + "f" * 32
KEPT = 4  # of the jobs
# What the document cannot say: each model has limits of its own.
OF_THE_MODEL = (
    *("width", "height", "size", "num_inference_steps", "steps", "guidance_scale", "cfg_scale", "true_cfg_scale"),
    *("max_sequence_length", "n", "n_iter", "batch_size", "output_compression", "webhook_url", "webhook_events"),
    *("parameters", "sampler_name", "override_settings"),
)
ASKERS = ("anybody", "holder", "reader", "stranger")  # the first while there is no key
SIGNED = ("/content", "/preview")
CHECKED = (
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "allow_header_conformance",
    "missing_required_header",
)
Case = schemathesis.Case[Any]
# Whoever waits for a model without a worker waits in vain; nothing else may be the server's fault.
EXCUSED = (504, "wait_timeout")

document = create_app(GatewaySettings(store_url="memory://")).openapi()
for methods in document["paths"].values():
    for method in methods.values():
        method.pop("security", None)  # who asks is this file's own matter
schema = schemathesis.openapi.from_dict(document)
ROUTES = [f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods]


@dataclass(slots=True)
class Asked:
    """Who asks, with what, and what was answered so far."""

    url: str
    who: str
    headers: dict[str, str]
    jobs: tuple[str, ...]
    answers: collections.Counter[tuple[str, int]] = field(default_factory=collections.Counter)


@dataclass(frozen=True, slots=True)
class Stack:
    url: str
    redis_url: str
    jobs: tuple[str, ...]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="darkroom-test-") as name, serving() as valkey:
        folder = Path(name)
        store_url = (folder / "images").as_uri()
        quick = {
            "DARKROOM_WAIT_TIMEOUT_S": "0.3",
            "DARKROOM_MODELS": f"{DRAWN},{WAITING}",
            "DARKROOM_MAX_OPEN": "1000000",
            "DARKROOM_MAX_QUEUED": "1000000",
        }
        with (
            gateway(folder, valkey.url, store_url, **quick) as client,
            null_worker(folder, valkey.url, store_url, step_ms="0", DARKROOM_MODELS=DRAWN),
        ):
            yield Stack(client.url, valkey.url, jobs_of_every_kind(client))


def jobs_of_every_kind(client: Client) -> tuple[str, ...]:
    """Those that are kept, and those to be deleted."""
    completed, waiting, canceled = (
        client.submit(model=DRAWN),
        client.submit(model=WAITING),
        client.submit(model=WAITING),
    )
    client.wait(completed, "completed")
    client.cancel(canceled)
    return completed, waiting, canceled, ABSENT, *(client.submit(model=WAITING) for _ in range(20)), ABSENT


@pytest.fixture(scope="module")
def keys(stack: Stack) -> dict[str, str]:
    """From here on everybody is asked for one."""
    made = asyncio.run(fresh_keys(stack.redis_url))
    time.sleep(REMEMBER_S)  # as long as a gateway believes that there are none
    return made


async def fresh_keys(redis_url: str) -> dict[str, str]:
    """Of the tenant whose jobs are there: those that were submitted while nobody was asked for a key."""
    async with connect(redis_url) as redis:
        store = KeyStore(redis)
        holder = await make_key(store, DEFAULT_TENANT, Role.READ, Role.SUBMIT, Role.ADMIN)
        reader = await make_key(store, DEFAULT_TENANT, Role.READ)
    return {"holder": holder[1], "reader": reader[1]}


@pytest.fixture(scope="module", params=ASKERS)
def asked(stack: Stack, request: pytest.FixtureRequest) -> Iterator[Asked]:
    who = request.param
    key = None if who == "anybody" else request.getfixturevalue("keys").get(who)
    asked = Asked(stack.url, who, {} if key is None else {"Authorization": f"Bearer {key}"}, stack.jobs)
    yield asked
    print(summary(asked))  # noqa: T201 - shown with -s, and with a failure


@pytest.mark.system
@pytest.mark.parametrize("route", ROUTES)
def test_every_answer_is_as_documented(asked: Asked, route: str) -> None:
    @given(case=cases(route, asked.jobs))
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Case) -> None:
        hold(asked, route, case)

    ask()


@st.composite
def cases(draw: st.DrawFn, route: str, jobs: tuple[str, ...]) -> Case:
    """One in three breaks the schema, one in three keeps to it, and one in three is also for a model that is here."""
    method, _, path = route.partition(" ")
    operation = schema[path][method]
    kinds = ["good", "kept", "broken"] if operation.body or any(True for _ in operation.iter_parameters()) else ["kept"]
    kind = draw(st.sampled_from(kinds))
    fixed = {}
    if "{job_id}" in path and kind != "broken":
        kept, doomed = jobs[:KEPT], jobs[KEPT:]
        fixed["job_id"] = draw(st.sampled_from(doomed if method == "DELETE" else kept))
    if "{model}" in path and kind == "good":
        fixed["model"] = DRAWN
    mode = GenerationMode.NEGATIVE if kind == "broken" else GenerationMode.POSITIVE
    case = draw(operation.as_strategy(mode, path_parameters=fixed or None))
    if kind == "good" and isinstance(case.body, dict):
        case.body = {name: value for name, value in case.body.items() if name not in OF_THE_MODEL}
        if "model" in operation.body[0].definition["schema"].get("properties", {}):
            case.body["model"] = draw(st.sampled_from((DRAWN, WAITING)))
    if kind == "good":
        case.query.pop("tenant", None)
    return case


def hold(asked: Asked, route: str, case: Case) -> None:
    """Ask, and hold the answer to the document: by schemathesis's checks, and by the rules of the one error body."""
    checks: list[Any] = CHECKS.get_by_names(CHECKED)
    answer = case.call(base_url=asked.url, headers=asked.headers)
    asked.answers[route, answer.status_code] += 1
    case.validate_response(answer, checks=checks, headers=asked.headers)
    sent = answer.request
    seen = httpx.Response(
        answer.status_code,
        headers={name: ", ".join(values) for name, values in answer.headers.items()},
        content=answer.content,
        request=httpx.Request(str(sent.method), str(sent.url)),
    )
    code = check_error(seen).get("code", "") if seen.status_code >= 400 else ""
    assert seen.status_code < 500 or (seen.status_code, code) == EXCUSED, seen.text
    # The document's `default` would let any status pass.
    statuses = documented_statuses(seen.request.method, seen.request.url.path)
    assert statuses is None or seen.status_code in statuses, seen.text
    if asked.who == "stranger" and seen.status_code in (403, 422) and route.endswith(SIGNED):
        return  # an address may be signed: what else is wrong with it is said first
    turned_away = seen.status_code == 401
    assert turned_away is (asked.who == "stranger" and route.split()[1] not in OPEN_PATHS), seen.text


def summary(asked: Asked) -> str:
    lines = [f"{asked.who}: {asked.answers.total()} requests, every answer as documented or reported above"]
    for route in ROUTES:
        counts = {status: count for (of, status), count in sorted(asked.answers.items()) if of == route}
        lines.append(f"  {route:32} " + "  ".join(f"{status} x{count}" for status, count in counts.items()))
    return "\n".join(lines)
