"""A resumed image is byte for byte the uninterrupted one, and what is no checkpoint of it is ignored."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save

from tests.workers.requests import make_request, make_spec
from workers.engine.checkpoint import fingerprint, from_bytes, to_bytes
from workers.engine.cost import CostModel
from workers.engine.engine import Engine
from workers.engine.pipeline import StepPipeline
from workers.engine.report import Drawn, Saved
from workers.engine.request import Checkpoint, DenoiseRequest, ImageSpec
from workers.engine.scheduler import Scheduler

REVISION = "1"
MODELS = ("tiny-flux-schnell", "tiny-flux-dev", "tiny-sd3")


def make_engine(pipelines: Mapping[str, StepPipeline], *, checkpoint_every_s: float | None = None) -> Engine:
    ticks = iter(range(10**6))
    return Engine(
        pipelines,
        Scheduler(CostModel(), max_rows=16),
        clock=lambda: float(next(ticks)),
        checkpoint_every_s=checkpoint_every_s,
    )


def draw(engine: Engine, request: DenoiseRequest) -> tuple[Drawn, list[Saved]]:
    saved = list(engine.admit([request]).saved)
    while True:
        report = engine.step()
        saved += report.saved
        if report.drawn:
            return report.drawn[0], saved


def spec_of(model: str) -> ImageSpec:
    return make_spec(model=model, num_inference_steps=5, guidance_scale=3.5)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("steps_before", [1, 4, 5])
def test_a_resumed_image_is_the_uninterrupted_one(
    pipelines: Mapping[str, StepPipeline], model: str, steps_before: int
) -> None:
    spec = spec_of(model)
    whole, _ = draw(make_engine(pipelines), DenoiseRequest("whole", spec, 0.0))

    interrupted = make_engine(pipelines)
    interrupted.admit([DenoiseRequest("first", spec, 0.0)])
    for _ in range(steps_before):
        interrupted.step()
    [saved] = interrupted.save().saved
    data = to_bytes(saved.checkpoint, fingerprint(spec, REVISION))

    checkpoint = from_bytes(data, fingerprint(spec, REVISION))
    resumed = DenoiseRequest("second", spec, 0.0, resume=checkpoint)
    drawn, _ = draw(make_engine(pipelines), resumed)
    assert torch.equal(drawn.request.latents, whole.request.latents)
    assert torch.equal(drawn.pixels, whole.pixels)
    assert resumed.resumed_step == steps_before


def test_checkpoints_are_taken_on_the_way_but_not_more_often_than_asked(
    pipelines: Mapping[str, StepPipeline],
) -> None:
    often, never = make_engine(pipelines, checkpoint_every_s=0.0), make_engine(pipelines)
    request = make_request("a", num_inference_steps=5)
    _, saved = draw(often, request)
    assert [s.checkpoint.step_index for s in saved] == [1, 2, 3, 4], "after the last step the picture itself is near"
    assert draw(never, make_request("b"))[1] == []


def test_an_image_whose_job_waits_for_others_is_saved_when_it_is_drawn(
    pipelines: Mapping[str, StepPipeline],
) -> None:
    _, saved = draw(make_engine(pipelines), DenoiseRequest("one of two", make_spec(), 0.0, has_siblings=True))
    assert [s.checkpoint.step_index for s in saved] == [make_spec().num_inference_steps]


def test_a_checkpoint_stays_what_it_was_while_the_image_develops(pipelines: Mapping[str, StepPipeline]) -> None:
    engine = make_engine(pipelines)
    engine.admit([make_request("a", num_inference_steps=3)])
    engine.step()
    [saved] = engine.save().saved
    before = saved.checkpoint.latents.clone()
    engine.step()
    assert torch.equal(saved.checkpoint.latents, before)


def test_only_what_has_moved_since_is_saved(pipelines: Mapping[str, StepPipeline]) -> None:
    engine = make_engine(pipelines)
    engine.admit([make_request("a", num_inference_steps=3)])
    assert engine.save().saved == [], "nothing is lost with a request that has not begun"
    engine.step()
    assert len(engine.save().saved) == 1
    assert engine.save().saved == []


def sealed(step_index: int = 2) -> bytes:
    return to_bytes(Checkpoint(torch.randn(1, 8, 8, 8), step_index), fingerprint(make_spec(), REVISION))


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": "a small red star"},
        {"negative_prompt": ""},
        {"seed": 8},
        {"num_inference_steps": 4},
        {"guidance_scale": 3.6},
        {"true_cfg_scale": 1.1},
        {"width": 80},
        {"max_sequence_length": 33},
        {"model": "tiny-flux-dev"},
    ],
    ids=str,
)
def test_a_checkpoint_of_other_settings_is_none(changes: dict[str, object]) -> None:
    assert from_bytes(sealed(), fingerprint(replace(make_spec(), **changes), REVISION)) is None  # type: ignore[arg-type]


def test_a_checkpoint_of_other_weights_is_none() -> None:
    assert from_bytes(sealed(), fingerprint(make_spec(), "2")) is None


def test_any_damaged_byte_makes_it_none() -> None:
    whole = sealed()
    right = fingerprint(make_spec(), REVISION)
    assert from_bytes(whole, right) is not None
    for at in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        assert from_bytes(bytes(damaged), right) is None, f"byte {at}"
    for length in (0, 1, 7, 8, 100, len(whole) - 1):
        assert from_bytes(whole[:length], right) is None, f"cut off after {length}"


@pytest.mark.parametrize(
    "tensors",
    [
        {"latents": torch.zeros(1, 8), "step_index": torch.tensor(float("inf")), "seal": torch.zeros(32)},
        {"latents": torch.tensor(1.0), "step_index": torch.tensor(2), "seal": torch.zeros(32)},
        {"latents": torch.zeros(1, 8), "step_index": torch.zeros(3), "seal": torch.zeros(32)},
        {"latents": torch.zeros(0), "step_index": torch.tensor(2), "seal": torch.zeros(1)},
        {"something": torch.zeros(1)},
    ],
    ids=["endless step", "no axes", "three steps", "empty", "other names"],
)
def test_odd_tensors_are_no_checkpoint(tensors: dict[str, torch.Tensor]) -> None:
    assert from_bytes(save(tensors), fingerprint(make_spec(), REVISION)) is None


@pytest.mark.parametrize(
    "checkpoint",
    [
        Checkpoint(torch.zeros(1, 8, 4, 4), 2),
        Checkpoint(torch.zeros(1, 8, 8, 8, dtype=torch.float16), 2),
        Checkpoint(torch.zeros(1, 8, 8, 8), 0),
        Checkpoint(torch.zeros(1, 8, 8, 8), 4),
    ],
    ids=["shape", "dtype", "nothing done", "more steps than there are"],
)
def test_one_that_does_not_fit_the_request_is_ignored(
    pipelines: Mapping[str, StepPipeline], checkpoint: Checkpoint
) -> None:
    fresh, _ = draw(make_engine(pipelines), make_request("fresh"))
    request = DenoiseRequest("odd", make_spec(), 0.0, resume=checkpoint)
    drawn, _ = draw(make_engine(pipelines), request)
    assert request.resumed_step == 0
    assert torch.equal(drawn.pixels, fresh.pixels)
