"""The promise: the same picture as stock diffusers, alone bit for bit; in any company but for the batch's rounding."""

from collections.abc import Mapping

import pytest
import torch
from diffusers import DiffusionPipeline

from tests.benchmarks.parity import LIMIT, MODELS, PIXEL_LIMIT, compare, random_specs, stock_latents_and_pixels
from tests.workers.requests import make_spec
from workers.engine.cost import CostModel
from workers.engine.engine import Engine
from workers.engine.pipeline import StepPipeline
from workers.engine.report import Drawn
from workers.engine.request import DenoiseRequest, ImageSpec
from workers.engine.scheduler import Scheduler

ROUNDED = 1e-3  # a last bit, carried on from step to step


def draw_alone(pipelines: Mapping[str, StepPipeline], spec: ImageSpec) -> Drawn:
    engine = Engine(pipelines, Scheduler(CostModel(), max_rows=2), clock=lambda: 0.0)
    engine.admit([DenoiseRequest("alone", spec, arrival_s=0.0)])
    while True:
        report = engine.step()
        assert not report.failed
        if report.drawn:
            return report.drawn[0]


@pytest.mark.parametrize(
    "spec",
    [
        make_spec(model="tiny-flux-schnell", num_inference_steps=1),
        make_spec(model="tiny-flux-schnell", num_inference_steps=4, height=128, width=96),
        make_spec(model="tiny-flux-dev", num_inference_steps=20, guidance_scale=2.0),
        make_spec(model="tiny-flux-dev", num_inference_steps=7, guidance_scale=15.0, max_sequence_length=64),
        make_spec(model="tiny-sd3", num_inference_steps=20, guidance_scale=7.0),
        make_spec(model="tiny-sd3", num_inference_steps=5, negative_prompt="blue, stripes"),
        make_spec(model="tiny-sd3", num_inference_steps=5, guidance_scale=1.0, width=160),
        make_spec(model="tiny-sd3", num_inference_steps=3, prompt="ring " * 90),
        make_spec(model="tiny-flux-dev", num_inference_steps=3, seed=2**63 - 1),
    ],
    ids=str,
)
def test_alone_it_is_the_stock_picture_bit_for_bit(
    pipelines: Mapping[str, StepPipeline], stocks: Mapping[str, DiffusionPipeline], spec: ImageSpec
) -> None:
    drawn = draw_alone(pipelines, spec)
    latents, pixels = stock_latents_and_pixels(spec, stocks[spec.model])
    assert torch.equal(drawn.request.latents, latents)
    assert torch.equal(drawn.pixels, pixels)


def test_in_a_churning_batch_it_is_the_stock_picture() -> None:
    comparisons = compare(count=30, seed=0, dtype=torch.float64)

    assert {c.spec.model for c in comparisons} == set(MODELS)
    assert len({c.spec.num_inference_steps for c in comparisons}) > 10
    assert max(c.largest_batch for c in comparisons) >= 6, "they must have had company"
    assert max(c.latent_difference for c in comparisons) <= LIMIT
    assert max(c.pixel_difference for c in comparisons) <= PIXEL_LIMIT


def test_in_single_precision_no_pixel_is_off_by_more_than_one() -> None:
    assert max(c.pixel_difference for c in compare(count=15, seed=1, dtype=torch.float32)) <= PIXEL_LIMIT


def test_true_cfg_is_flux_pipelines_own(
    pipelines: Mapping[str, StepPipeline], stocks: Mapping[str, DiffusionPipeline]
) -> None:
    """The stock pipeline runs the two sides one after the other, so the last bit may differ."""
    spec = make_spec(model="tiny-flux-dev", num_inference_steps=12, negative_prompt="blue", true_cfg_scale=3.0)
    latents, _ = stock_latents_and_pixels(spec, stocks[spec.model])
    drawn = draw_alone(pipelines, spec)
    assert drawn.request.largest_batch == 2
    assert (drawn.request.latents - latents).abs().max() <= ROUNDED


def test_random_specs_cover_what_they_claim() -> None:
    specs = random_specs(60, seed=0)
    assert {spec.true_cfg_scale for spec in specs} == {1.0, 3.0}
    assert any(spec.negative_prompt for spec in specs)
    assert len({(spec.height, spec.width) for spec in specs}) == 2
