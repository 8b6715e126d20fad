"""Joining, leaving, and what one request's trouble does to the others."""

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from tests.workers.requests import make_request
from workers.engine.batch import DenoiseBatch
from workers.engine.engine import Engine, FailureReason, Report
from workers.engine.pipeline import StepPipeline
from workers.engine.request import Conditioning, Guidance, ImageSpec, Schedule
from workers.engine.scheduler import Scheduler


def make_engine(pipelines: Mapping[str, StepPipeline], max_rows: int = 16) -> Engine:
    ticks = iter(range(10**9))
    return Engine(pipelines, Scheduler(max_rows), clock=lambda: float(next(ticks)))


def drain(engine: Engine) -> list[Report]:
    reports = []
    while len(engine):
        reports.append(engine.step())
    return reports


def test_requests_with_different_step_counts_leave_one_by_one(pipelines: Mapping[str, StepPipeline]) -> None:
    engine = make_engine(pipelines)
    engine.admit([make_request(str(n), n, num_inference_steps=n) for n in (1, 2, 4)])

    reports = drain(engine)

    assert [[d.request.id for d in report.drawn] for report in reports] == [["1"], ["2"], [], ["4"]]
    assert [report.rows for report in reports] == [6, 4, 2, 2]
    assert all(report.model == "tiny-sd3" for report in reports)


def test_a_newcomer_joins_beside_a_request_in_mid_run(pipelines: Mapping[str, StepPipeline]) -> None:
    engine = make_engine(pipelines)
    first, second = make_request("first", 0, num_inference_steps=4), make_request("second", 1, num_inference_steps=4)
    engine.admit([first])
    engine.step()
    engine.step()
    engine.admit([second])
    report = engine.step()

    assert report.rows == 4
    assert (first.step_index, second.step_index) == (3, 1)


def test_guided_and_unguided_rows_share_a_forward(pipelines: Mapping[str, StepPipeline]) -> None:
    engine = make_engine(pipelines)
    engine.admit([make_request("guided", 0), make_request("plain", 1, guidance_scale=1.0)])
    assert engine.step().rows == 3


@pytest.mark.parametrize(
    "other", [{"model": "tiny-flux-dev"}, {"width": 80}, {"max_sequence_length": 64}], ids=["model", "size", "text"]
)
def test_what_must_not_share_a_forward_does_not(
    pipelines: Mapping[str, StepPipeline], other: dict[str, object]
) -> None:
    engine = make_engine(pipelines)
    engine.admit([make_request("a", 0, guidance_scale=1.0), make_request("b", 1, **{"guidance_scale": 1.0, **other})])
    assert [engine.step().rows, engine.step().rows] == [1, 1]


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


@dataclass
class Troubled:
    """A real pipeline that fails on demand: the failure is staged, everything around it is not."""

    real: StepPipeline
    trouble: str

    def guide(self, spec: ImageSpec) -> Guidance:
        return self.real.guide(spec)

    def encode(self, prompt: str, max_sequence_length: int) -> Conditioning:
        if self.trouble == "encode" and prompt == "cursed":
            raise RuntimeError("no text today")
        return self.real.encode(prompt, max_sequence_length)

    def init_latents(self, spec: ImageSpec) -> tuple[Tensor, Schedule]:
        return self.real.init_latents(spec)

    def denoise(self, batch: DenoiseBatch) -> Tensor:
        if self.trouble == "memory":
            raise torch.OutOfMemoryError("out of memory")
        noise_pred = self.real.denoise(batch)
        if self.trouble == "nan":
            noise_pred[0] = float("nan")
        return noise_pred

    def decode(self, latents: Tensor, height: int, width: int) -> Tensor:
        if self.trouble == "decode":
            self.trouble = ""
            raise torch.OutOfMemoryError("out of memory")
        return self.real.decode(latents, height, width)


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [("encode", FailureReason.INTERNAL_ERROR), ("memory", FailureReason.OUT_OF_MEMORY)],
)
def test_trouble_is_reported_and_the_engine_goes_on(
    pipelines: Mapping[str, StepPipeline], trouble: str, reason: FailureReason
) -> None:
    engine = make_engine({**pipelines, "tiny-sd3": Troubled(pipelines["tiny-sd3"], trouble)})
    good = make_request("good", 1, model="tiny-flux-schnell")
    admitted = engine.admit([make_request("bad", 0, prompt="cursed"), good])
    reports = [admitted, *drain(engine)]

    assert [(f.request.id, f.reason) for report in reports for f in report.failed] == [("bad", reason)]
    assert [d.request.id for report in reports for d in report.drawn] == ["good"]
    assert len(engine) == 0


def test_latents_that_are_not_numbers_fail_their_own_request_only(pipelines: Mapping[str, StepPipeline]) -> None:
    engine = make_engine({"tiny-sd3": Troubled(pipelines["tiny-sd3"], "nan")})
    engine.admit([make_request(name, i, guidance_scale=1.0) for i, name in enumerate(["bad", "good"])])
    last = drain(engine)[-1]
    assert [(f.request.id, f.reason) for f in last.failed] == [("bad", FailureReason.INVALID_OUTPUT)]
    assert [d.request.id for d in last.drawn] == ["good"]


def test_a_prompt_that_cannot_be_encoded_fails_alone(pipelines: Mapping[str, StepPipeline]) -> None:
    engine = make_engine({"tiny-sd3": Troubled(pipelines["tiny-sd3"], "encode")})
    admitted = engine.admit([make_request("bad", 0, prompt="cursed"), make_request("good", 1)])
    assert [failed.request.id for failed in admitted.failed] == ["bad"]
    assert [drawn.request.id for report in drain(engine) for drawn in report.drawn] == ["good"]


def test_a_decode_that_fails_takes_only_the_finished_with_it(pipelines: Mapping[str, StepPipeline]) -> None:
    engine = make_engine({"tiny-sd3": Troubled(pipelines["tiny-sd3"], "decode")})
    engine.admit([make_request("bad", 0, num_inference_steps=1), make_request("good", 1)])
    reports = drain(engine)
    assert [(f.request.id, f.reason) for r in reports for f in r.failed] == [("bad", FailureReason.OUT_OF_MEMORY)]
    assert [drawn.request.id for report in reports for drawn in report.drawn] == ["good"]
