"""One request's trouble is its own: its mates finish with the very bytes they would have had without it.

In double precision: there the bytes do not depend on how many rows a forward has, so that a batch that was split and
one that was not can be compared. Each of these fails when its isolation is taken out of engine.py.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch

from app.jobs.schema import OutputFormat
from tests.benchmarks.parity import load_bundled
from tests.workers.requests import flat_cost, make_request
from tests.workers.troubled import CURSED, Trouble, Troubled
from workers.engine.cost import Stage
from workers.engine.engine import Engine
from workers.engine.pipeline import StepPipeline
from workers.engine.report import Drawn, Failed, FailureReason, Report
from workers.engine.request import DenoiseRequest
from workers.engine.scheduler import Scheduler
from workers.engine.trouble import DeviceLostError
from workers.images import encode_image

MODEL = "tiny-sd3"
STEPS = 4


@pytest.fixture(scope="module")
def exact() -> Mapping[str, StepPipeline]:
    return load_bundled(torch.float64)


def make_engine(pipeline: StepPipeline, preview_every_s: float | None = None) -> Engine:
    """Everybody steps together: on this clock a forward takes a second, however many share it."""
    ticks = itertools.count()
    return Engine(
        {MODEL: pipeline},
        Scheduler(flat_cost(), max_rows=64),
        clock=lambda: float(next(ticks)),
        preview_every_s=preview_every_s,
    )


def finish(engine: Engine, requests: list[DenoiseRequest]) -> Report:
    """Everything that was reported on the way to the end, in one."""
    total = engine.admit(requests)
    for _ in range(100):
        if not len(engine):
            return total
        report = engine.step()
        total.worked += report.worked
        total.drawn += report.drawn
        total.failed += report.failed
        total.splits += report.splits
        total.repaired += report.repaired
        total.overlooked += report.overlooked
    raise AssertionError("it never ends")


def mates() -> list[DenoiseRequest]:
    """Seven of unlike settings that may share a batch, guided and not, of different lengths."""
    return [
        make_request(
            f"mate-{i}", i, seed=i, num_inference_steps=STEPS - i % 2, guidance_scale=1.0 if i % 3 else 3.0 + i
        )
        for i in range(7)
    ]


def culprit() -> DenoiseRequest:
    return make_request("culprit", 3, prompt=CURSED, num_inference_steps=STEPS, guidance_scale=1.0)


def files(drawn: list[Drawn]) -> dict[str, bytes]:
    return {
        d.request.id: encode_image(d.pixels, OutputFormat.PNG, None, {"seed": d.request.spec.seed}, "") for d in drawn
    }


@pytest.fixture(scope="module")
def undisturbed(exact: Mapping[str, StepPipeline]) -> Mapping[str, bytes]:
    return files(finish(make_engine(exact[MODEL]), mates()).drawn)


def check(report: Report, undisturbed: Mapping[str, bytes], reason: FailureReason) -> Failed:
    """The mates' bytes are as ever, and the culprit alone failed."""
    assert files(report.drawn) == undisturbed
    [failed] = report.failed
    assert failed.request.id == "culprit"
    assert failed.reason is reason
    return failed


def test_an_exception_in_a_batched_forward_fails_the_culprit_only(
    exact: Mapping[str, StepPipeline], undisturbed: Mapping[str, bytes]
) -> None:
    requests = mates()
    requests.insert(3, culprit())
    report = finish(make_engine(Troubled(exact[MODEL], Trouble.ERROR)), requests)
    failed = check(report, undisturbed, FailureReason.INTERNAL_ERROR)
    assert str(failed.cause) == "a cursed row"
    assert 0 < len(report.splits) <= math.ceil(math.log2(8)), "bisected, once"


def test_latents_that_are_no_numbers_fail_their_own_request_only(
    exact: Mapping[str, StepPipeline], undisturbed: Mapping[str, bytes]
) -> None:
    report = finish(make_engine(Troubled(exact[MODEL], Trouble.NAN)), [culprit(), *mates()])
    check(report, undisturbed, FailureReason.INVALID_OUTPUT)
    assert not report.splits, "the others' step stands"


def test_what_overflows_is_repaired_in_float32_from_its_last_good_step(
    exact: Mapping[str, StepPipeline], undisturbed: Mapping[str, bytes]
) -> None:
    alone = files(finish(make_engine(exact[MODEL]), [culprit()]).drawn)
    report = finish(make_engine(Troubled(exact[MODEL], Trouble.OVERFLOW)), [culprit(), *mates()])
    assert report.repaired == STEPS
    assert not report.failed
    assert files(report.drawn) == {**undisturbed, **alone}


def test_a_batch_too_large_for_memory_goes_on_in_halves_and_stays_small(
    exact: Mapping[str, StepPipeline], undisturbed: Mapping[str, bytes]
) -> None:
    pipeline = Troubled(exact[MODEL], most_rows=4)
    report = finish(make_engine(pipeline), mates())
    assert files(report.drawn) == undisturbed
    assert not report.failed
    assert set(report.splits) == {FailureReason.OUT_OF_MEMORY}
    too_large = [rows for rows in pipeline.forwards if rows > 4]
    assert len(too_large) <= 3, f"once the limit is known it is kept to, but these were tried: {too_large}"


def test_an_image_too_large_for_memory_fails_alone_and_names_a_size_that_fits(
    exact: Mapping[str, StepPipeline], undisturbed: Mapping[str, bytes]
) -> None:
    pipeline = Troubled(exact[MODEL], most_pixels=64 * 64)
    engine = make_engine(pipeline)
    first = finish(engine, mates())
    large = replace(culprit().spec, height=128, width=128)
    second = finish(engine, [DenoiseRequest("culprit", large, 0.0)])
    first.failed += second.failed
    assert check(first, undisturbed, FailureReason.OUT_OF_MEMORY).fits == (64, 64)
    assert pipeline.forwards[-2:] == [1, 1], "alone it is tried again after memory was made free"


def test_a_decode_too_large_for_memory_goes_on_in_halves_and_stays_small(
    exact: Mapping[str, StepPipeline], undisturbed: Mapping[str, bytes]
) -> None:
    pipeline = Troubled(exact[MODEL], single_decodes=True)
    engine = make_engine(pipeline)
    report = finish(engine, mates())
    assert files(report.drawn) == undisturbed
    assert not report.failed
    pipeline.decodes.clear()
    assert files(finish(engine, mates()).drawn) == undisturbed
    assert set(pipeline.decodes) == {1}, "guided images too are one row of a decode"


def test_a_prompt_that_cannot_be_encoded_fails_alone(
    exact: Mapping[str, StepPipeline], undisturbed: Mapping[str, bytes]
) -> None:
    class NoText(Troubled):
        def encode(self, prompt: str, max_sequence_length: int):  # type: ignore[no-untyped-def]
            if prompt == CURSED:
                raise RuntimeError("no text today")
            return super().encode(prompt, max_sequence_length)

    check(finish(make_engine(NoText(exact[MODEL])), [culprit(), *mates()]), undisturbed, FailureReason.INTERNAL_ERROR)


def test_one_that_is_canceled_between_steps_costs_its_mates_nothing(
    exact: Mapping[str, StepPipeline], undisturbed: Mapping[str, bytes]
) -> None:
    engine = make_engine(exact[MODEL])
    requests = mates()
    engine.admit([culprit(), *requests])
    engine.step()
    engine.abort("culprit")
    assert files(finish(engine, []).drawn) == undisturbed


@pytest.mark.parametrize("lost_in", ["denoise", "preview", "in_float32", "decode"])
def test_a_lost_device_is_nobodys_fault(exact: Mapping[str, StepPipeline], lost_in: str) -> None:
    """Wherever it shows: also after the step was taken, when a step taken again would be one too many."""

    class Lost(Troubled):
        def __getattribute__(self, name: str) -> object:
            if name == lost_in:
                raise torch.AcceleratorError("an illegal memory access was encountered")
            return super().__getattribute__(name)

    engine = make_engine(Lost(exact[MODEL], Trouble.OVERFLOW), preview_every_s=0.0)
    engine.admit([culprit(), *mates()] if lost_in == "in_float32" else mates())
    with pytest.raises(DeviceLostError):
        finish(engine, [])
    assert len(engine) >= 6, "their jobs go to another process"


def test_no_memory_for_the_repair_is_no_matter_of_size(
    exact: Mapping[str, StepPipeline], undisturbed: Mapping[str, bytes]
) -> None:
    class NoRoom(Troubled):
        def in_float32(self):  # type: ignore[no-untyped-def]
            raise torch.OutOfMemoryError("for float32 weights")

    report = finish(make_engine(NoRoom(exact[MODEL], Trouble.OVERFLOW)), [culprit(), *mates()])
    check(report, undisturbed, FailureReason.INVALID_OUTPUT)


def test_a_step_is_never_taken_twice(exact: Mapping[str, StepPipeline]) -> None:
    """Neither when a preview fails after the step, nor when the batch was split because of another."""

    class NoPreview(Troubled):
        def preview(self, latents, height, width):  # type: ignore[no-untyped-def]
            raise RuntimeError("no preview today")

    for trouble in (None, Trouble.ERROR):
        engine = make_engine(NoPreview(exact[MODEL], trouble), preview_every_s=0.0)
        requests = mates()
        report = finish(engine, [*requests, *([culprit()] if trouble else [])])
        assert len(report.drawn) == len(requests)
        assert bool(report.splits) is (trouble is not None)
        assert len(report.overlooked) > 0
        rows = sum(worked.rows for worked in report.worked if worked.stage is Stage.DENOISE)
        assert rows == sum(request.rows * request.spec.num_inference_steps for request in requests)
