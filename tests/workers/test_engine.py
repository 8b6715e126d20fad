"""Joining and leaving. What one request's trouble does to the others: test_isolation.py."""

import itertools
from collections.abc import Mapping

import pytest
import torch

from tests.workers.requests import flat_cost, make_request
from workers.engine.cost import Stage
from workers.engine.engine import Engine
from workers.engine.pipeline import StepPipeline
from workers.engine.report import Report, Worked
from workers.engine.residency import Residency
from workers.engine.scheduler import Priority, Scheduler


def make_engine(pipelines: Mapping[str, StepPipeline], max_rows: int = 16, **options: object) -> Engine:
    """On this clock a forward takes a second, however many share it."""
    ticks = itertools.count()
    scheduler = Scheduler(flat_cost(*pipelines), max_rows=max_rows)
    return Engine(pipelines, scheduler, clock=lambda: float(next(ticks)), **options)  # type: ignore[arg-type]


def drain(engine: Engine) -> list[Report]:
    reports = []
    while len(engine):
        reports.append(engine.step())
    return reports


def forwards(reports: list[Report]) -> list[Worked]:
    return [worked for report in reports for worked in report.worked if worked.stage is Stage.DENOISE]


def test_requests_with_different_step_counts_leave_one_by_one(pipelines: Mapping[str, StepPipeline]) -> None:
    engine = make_engine(pipelines)
    engine.admit([make_request(str(n), n, num_inference_steps=n) for n in (1, 2, 4)])

    reports = drain(engine)

    assert [drawn.request.id for report in reports for drawn in report.drawn] == ["1", "2", "4"]
    assert [worked.rows for worked in forwards(reports)] == [6, 4, 2, 2]
    assert {worked.key.model for worked in forwards(reports)} == {"tiny-sd3"}


def test_a_newcomer_joins_beside_a_request_in_mid_run(pipelines: Mapping[str, StepPipeline]) -> None:
    engine = make_engine(pipelines)
    first, second = make_request("first", 0, num_inference_steps=4), make_request("second", 1, num_inference_steps=4)
    engine.admit([first])
    engine.step()
    engine.step()
    engine.admit([second])
    [worked] = engine.step().worked

    assert worked.rows == 4
    assert (first.step_index, second.step_index) == (3, 1)


def test_a_decode_is_a_piece_of_work_of_its_own(pipelines: Mapping[str, StepPipeline]) -> None:
    engine = make_engine(pipelines)
    engine.admit([make_request(str(i), i, num_inference_steps=1) for i in range(3)])
    steps, decode = engine.step(), engine.step()
    assert not steps.drawn
    assert [(worked.stage, worked.rows) for worked in decode.worked] == [(Stage.VAE_DECODE, 3)], "those done, together"
    assert len(decode.drawn) == 3


def test_guided_and_unguided_rows_share_a_forward(pipelines: Mapping[str, StepPipeline]) -> None:
    engine = make_engine(pipelines)
    engine.admit([make_request("guided", 0), make_request("plain", 1, guidance_scale=1.0)])
    assert engine.step().worked[0].rows == 3


@pytest.mark.parametrize(
    "other", [{"model": "tiny-flux-dev"}, {"width": 80}, {"max_sequence_length": 64}], ids=["model", "size", "text"]
)
def test_what_must_not_share_a_forward_does_not(
    pipelines: Mapping[str, StepPipeline], other: dict[str, object]
) -> None:
    engine = make_engine(pipelines)
    engine.admit([make_request("a", 0, guidance_scale=1.0), make_request("b", 1, **{"guidance_scale": 1.0, **other})])  # type: ignore[arg-type]
    assert {worked.rows for worked in forwards(drain(engine))} == {1}


def test_an_aborted_request_leaves_at_the_boundary_and_its_mate_is_undisturbed(
    pipelines: Mapping[str, StepPipeline],
) -> None:
    alone = make_engine(pipelines)
    alone.admit([make_request("mate", guidance_scale=1.0, num_inference_steps=6)])
    expected = drain(alone)[-1].drawn[0].request.latents

    engine = make_engine(pipelines)
    engine.admit([make_request(name, i, guidance_scale=1.0, num_inference_steps=6) for i, name in enumerate("xm")])
    engine.step()
    engine.abort("x")
    engine.abort("never here")
    reports = drain(engine)

    assert [d.request.id for report in reports for d in report.drawn] == ["m"]
    assert (reports[-1].drawn[0].request.latents - expected).abs().max() <= 1e-5


def test_pixels_are_whole_images(pipelines: Mapping[str, StepPipeline]) -> None:
    engine = make_engine(pipelines)
    engine.admit([make_request("wide", height=64, width=96)])
    pixels = drain(engine)[-1].drawn[0].pixels
    assert pixels.shape == (64, 96, 3)
    assert pixels.dtype == torch.uint8


def test_stage_times_are_measured_on_the_given_clock(pipelines: Mapping[str, StepPipeline]) -> None:
    engine = make_engine(pipelines)
    engine.admit([make_request("a", num_inference_steps=2)])
    request = drain(engine)[-1].drawn[0].request
    assert request.text_encode_s > 0
    assert request.denoise_s > 0
    assert request.vae_decode_s > 0


def test_weights_that_do_not_fit_together_take_turns_on_the_device(pipelines: Mapping[str, StepPipeline]) -> None:
    sizes = {model: pipelines[model].weight_bytes for model in ("tiny-sd3", "tiny-flux-schnell")}
    expected = pixels_of(two_models(make_engine(pipelines)))
    reports = two_models(make_engine(pipelines, residency=Residency(sizes, budget_bytes=max(sizes.values()))))
    # Each is brought for its prompt, and the second then draws its picture; the first comes back once, to draw its own.
    assert [model for report in reports for model in report.moves] == ["tiny-sd3", "tiny-flux-schnell", "tiny-sd3"]
    assert all(torch.equal(pixels_of(reports)[name], expected[name]) for name in expected)


def test_a_newcomer_waits_for_its_model_while_others_are_in_flight(pipelines: Mapping[str, StepPipeline]) -> None:
    sizes = {model: pipelines[model].weight_bytes for model in ("tiny-sd3", "tiny-flux-schnell")}
    residency = Residency(sizes, budget_bytes=max(sizes.values()))
    residency.moved("tiny-flux-schnell", 10.0)
    engine = make_engine(pipelines, residency=residency)
    engine.admit([make_request("first", 0.0, num_inference_steps=6)])
    engine.step()
    other = make_request("other", 10.0, model="tiny-flux-schnell")
    assert engine.next_admissions([other]) == [], "the weights in use stay"
    assert engine.next_admissions([make_request("urgent", 10.0, model="tiny-flux-schnell", priority=Priority.HIGH)])
    like = make_request("like", 11.0)
    assert engine.next_admissions([other, like]) == [like]
    patient = make_request("patient", -1000.0, model="tiny-flux-schnell")
    assert engine.next_admissions([patient]) == [patient], "but not for ever"
    drain(engine)
    assert engine.next_admissions([other, like]) == [like, other][:1], "what is there goes first"
    assert engine.next_admissions([other]) == [other], "nobody is held up"


@pytest.mark.parametrize(
    ("victim", "flood"),
    [
        (Priority.NORMAL, Priority.HIGH),
        (Priority.LOW, Priority.NORMAL),
    ],
)
def test_whoever_waits_longest_is_admitted_in_the_end(
    pipelines: Mapping[str, StepPipeline], victim: Priority, flood: Priority
) -> None:
    engine = make_engine(pipelines)
    oldest = make_request("oldest", 0.0, priority=victim, prompt="oldest")
    for number in range(1, 200):
        others = [make_request(f"{number}-{i}", number, priority=flood, prompt=f"{number} {i}") for i in range(3)]
        joining = engine.next_admissions([oldest, *others])
        if oldest in joining:
            break
        engine.admit(joining)
    assert [request.id for request in joining] == ["oldest"]
    assert 20 <= len(engine) <= 24


def two_models(engine: Engine) -> list[Report]:
    admitted = engine.admit(
        [
            make_request("sd3", 0, num_inference_steps=6, guidance_scale=1.0),
            make_request("schnell", 1, model="tiny-flux-schnell", num_inference_steps=6),
        ]
    )
    return [admitted, *drain(engine)]


def pixels_of(reports: list[Report]) -> dict[str, torch.Tensor]:
    return {drawn.request.id: drawn.pixels for report in reports for drawn in report.drawn}


def test_previews_show_what_is_coming_but_not_more_often_than_asked(pipelines: Mapping[str, StepPipeline]) -> None:
    engine = make_engine(pipelines, preview_every_s=0.0)
    engine.admit(
        [make_request("a", num_inference_steps=6, height=64, width=96), make_request("b", num_inference_steps=2)]
    )
    reports = drain(engine)
    previews = [preview for report in reports for preview in report.previews]
    assert [p.step_index for p in previews if p.request.id == "a"] == [1, 2, 3, 4, 5], "then the picture itself is near"
    assert {p.pixels.shape for p in previews if p.request.id == "a"} == {(8, 12, 3)}
    [final] = [drawn.pixels for report in reports for drawn in report.drawn if drawn.request.id == "a"]
    small = final.float().reshape(8, 8, 12, 8, 3).mean((1, 3))
    errors = [(p.pixels.float() - small).abs().mean().item() for p in previews if p.request.id == "a"]
    assert errors[-1] < min(25.0, errors[0]), f"nearer and nearer to the picture: {errors}"

    slow = make_engine(pipelines, preview_every_s=10**6)
    slow.admit([make_request("a", num_inference_steps=6)])
    assert not [preview for report in drain(slow) for preview in report.previews]
