"""The contract's messages, as they lie in Redis: a file for each, so that a change shows in a diff.

A worker and a gateway of different versions meet on one queue. Whoever changes a file here changes what they say to
each other, and says so in the pull request.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from app.jobs import schema
from app.jobs.schema import (
    Advice,
    ErrorCode,
    ImageFile,
    ImageJob,
    JobError,
    JobRecord,
    JobResult,
    JobState,
    LaneStats,
    OutputFormat,
    Priority,
    Progress,
    QueueStats,
    Stage,
    StageSeconds,
    StepTime,
    WorkerInfo,
)

GOLDEN = Path(__file__).with_name("golden")
OLDER = Path(__file__).with_name("older")

# What an earlier version did not write, and what is read in its place.
LATER: dict[str, dict[str, Any]] = {
    "image_job": {
        "priority": "normal",
        "deadline_s": None,
        "warnings": [],
    },
    "job_result": {"gpu_s": 0.0, "cost_usd": None, "resumed_steps": 0, "redone_steps": 0},
    "worker_info": {"memory_used_bytes": None, "step_times": [], "usd_per_hour": 0.0},
    "progress": {"previews": []},
}

JOB = ImageJob(
    id="img_0123456789abcdef0123456789abcdef",
    tenant="default",
    model="tiny-sd3",
    prompt='a small "red" ring \N{RING BUOY}\n',
    negative_prompt=None,
    width=128,
    height=64,
    num_inference_steps=20,
    guidance_scale=3.5,
    true_cfg_scale=1.0,
    max_sequence_length=128,
    seed=2**63 - 2,
    n=2,
    output_format=OutputFormat.WEBP,
    output_compression=80,
    priority=Priority.HIGH,
    deadline_s=2.5,
    metadata={"order": "7"},
    warnings=(Advice(code="steps_few", message="4 steps are few; try 20.", param="num_inference_steps"),),
)
PROGRESS = Progress(stage=Stage.DENOISE, step=7, total_steps=40, previews=(4, 0))
ERROR = JobError(code=ErrorCode.OUT_OF_MEMORY, message="The device's memory is full.", retryable=True)
RESULT = JobResult(
    images=tuple(
        ImageFile(
            index=index,
            path=f"results/img_0123456789abcdef0123456789abcdef/token/{index}.webp",
            content_type="image/webp",
            width=128,
            height=64,
            seed=2**63 - 2 + index,
            steps=20,
            size_bytes=1024,
            sha256="5f" * 32,
        )
        for index in range(2)
    ),
    seconds=StageSeconds(text_encode=0.5, denoise=1.5, vae_decode=0.25, image_encode=0.125, store=0.0625),
    denoise_steps=40,
    largest_batch=8,
    model_revision="0-random",
    worker="worker-1",
    worker_version="0.1.0",
    gpu_s=1.75,
    cost_usd=0.0035,
    resumed_steps=12,
    redone_steps=3,
)
WORKER = WorkerInfo(
    id="worker-1",
    version="0.1.0",
    models=("tiny-sd3", "tiny-flux-dev"),
    device="cpu",
    jobs_in_progress=3,
    memory_used_bytes=2**30,
    step_times=(StepTime(model="tiny-sd3", height=128, width=128, rows=2, seconds=0.05),),
    usd_per_hour=2.5,
)

MESSAGES: dict[str, BaseModel] = {
    "image_job": JOB,
    "progress": PROGRESS,
    "job_error": ERROR,
    "job_result": RESULT,
    "job_record": JobRecord(
        job=JOB,
        state=JobState.IN_PROGRESS,
        attempts=2,
        crashes=1,
        worker="worker-1",
        submitted_ms=1767225600000,
        started_ms=1767225601000,
        finished_ms=None,
        progress=PROGRESS,
        result=None,
        error=ERROR,
        cost_s=2.5,
        position=None,
        start_in_s=None,
        expired_ms=None,
    ),
    "job_record_completed": JobRecord(
        job=JOB,
        state=JobState.COMPLETED,
        attempts=1,
        crashes=0,
        worker="worker-1",
        submitted_ms=1767225600000,
        started_ms=1767225601000,
        finished_ms=1767225602000,
        progress=None,
        result=RESULT,
        error=None,
        cost_s=2.5,
        position=None,
        start_in_s=None,
        expired_ms=1767830402000,
    ),
    "worker_info": WORKER,
    "queue_stats": QueueStats(
        lanes={
            "tiny-sd3": LaneStats(
                queued=3,
                oldest_s=1.5,
                work_s=7.5,
                pace_s=2.25,
                queued_by_priority={Priority.HIGH: 1, Priority.NORMAL: 0, Priority.LOW: 1},
                suspects=1,
                in_progress=2,
            )
        },
        in_progress=2,
        delayed=1,
        dead=0,
        workers=(WORKER,),
        totals={"submitted": 6, "completed": 1},
    ),
}

each_message = pytest.mark.parametrize("name", MESSAGES)


def golden(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def objects(value: Any) -> list[dict[str, Any]]:
    """Give every JSON object inside, the outermost first; they can be changed in place."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return ([value] if isinstance(value, dict) else []) + [found for part in inner for found in objects(part)]


@each_message
def test_a_message_is_written_as_its_file(name: str) -> None:
    full = json.loads(MESSAGES[name].model_dump_json())
    text = json.dumps(full, indent=2, ensure_ascii=False) + "\n"
    assert text == (GOLDEN / f"{name}.json").read_text(encoding="utf-8")


@each_message
def test_a_file_is_read_as_its_message(name: str) -> None:
    message = MESSAGES[name]
    read = type(message).model_validate_json((GOLDEN / f"{name}.json").read_bytes())
    assert read == message
    assert type(message).model_validate_json(read.model_dump_json()) == message


@each_message
def test_an_unknown_field_is_refused_at_every_depth(name: str) -> None:
    free = {"metadata", "lanes", "queued_by_priority", "totals"}
    for place in range(len(objects(golden(name)))):
        changed = golden(name)
        target = objects(changed)[place]
        if any(target in (holder.get(key) for key in free) for holder in objects(changed)):
            continue
        target["from_the_future"] = "1"
        with pytest.raises(ValidationError) as caught:
            type(MESSAGES[name]).model_validate_json(json.dumps(changed))
        assert {problem["type"] for problem in caught.value.errors()} == {"extra_forbidden"}


@each_message
def test_no_field_may_be_left_out(name: str) -> None:
    for field in golden(name).keys() - LATER.get(name, {}).keys():
        shorter = golden(name)
        del shorter[field]
        with pytest.raises(ValidationError) as caught:
            type(MESSAGES[name]).model_validate_json(json.dumps(shorter))
        assert [(problem["type"], problem["loc"]) for problem in caught.value.errors()] == [("missing", (field,))]


@pytest.mark.parametrize("name", LATER)
def test_what_an_older_version_wrote_is_read(name: str) -> None:
    older = json.loads((OLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert older.keys() == golden(name).keys() - LATER[name].keys()
    read = type(MESSAGES[name]).model_validate_json(json.dumps(older))
    assert read.model_dump(mode="json") == older | LATER[name]


@each_message
def test_a_message_does_not_change(name: str) -> None:
    message = MESSAGES[name]
    for field in type(message).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(message, field, None)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_a_number_that_json_does_not_have_is_refused(number: str) -> None:
    text = (GOLDEN / "image_job.json").read_text(encoding="utf-8").replace("3.5", number)
    with pytest.raises(ValidationError):
        ImageJob.model_validate_json(text)


def test_every_message_of_the_contract_is_here() -> None:
    def inside(value: object) -> set[type]:
        if isinstance(value, BaseModel):
            return {type(value)}.union(*(inside(part) for _, part in value))
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else ()
        return set().union(*(inside(part) for part in parts))

    messages = {kind for kind in vars(schema).values() if isinstance(kind, type) and issubclass(kind, BaseModel)}
    assert set().union(*map(inside, MESSAGES.values())) == {
        kind for kind in messages if kind is not BaseModel and not kind.__name__.startswith("_")
    }
    assert {file.stem for file in GOLDEN.iterdir()} == set(MESSAGES)
    assert {file.stem for file in OLDER.iterdir()} == set(LATER)


def test_the_words_that_clients_switch_on_stay() -> None:
    assert [*ErrorCode] == [
        "out_of_memory",
        "invalid_output",
        "worker_lost",
        "model_unavailable",
        "storage_failed",
        "internal_error",
    ]
    assert [*JobState] == [
        "queued",
        "delayed",
        "in_progress",
        "canceling",
        "completed",
        "failed",
        "dead",
        "canceled",
    ]
    assert [*Stage] == ["queued", "text_encode", "denoise", "vae_decode", "image_encode", "store", "done"]
    assert [*OutputFormat] == ["png", "jpeg", "webp"]
    assert [*Priority] == ["low", "normal", "high"]
