"""What a job should cost, by what workers measured."""

import pytest

from app.catalog.catalog import Catalog
from app.jobs.cost import PRIOR_S_PER_MEGAPIXEL, job_cost_s
from app.jobs.schema import StepTime
from tests.conftest import make_job

MODEL = "tiny-sd3"


def measured(side: int, rows: int, seconds: float, model: str = MODEL) -> StepTime:
    return StepTime(model=model, height=side, width=side, rows=rows, seconds=seconds)


def cost_s(rows: int, *times: StepTime, **changes: object) -> float:
    return job_cost_s(make_job(model=MODEL, **({"width": 256, "height": 256} | changes)), rows, times)


def test_steps_times_images_times_what_a_step_took() -> None:
    assert cost_s(1, measured(256, 1, 0.5), num_inference_steps=10, n=3) == pytest.approx(15)


def test_guidance_counts_by_the_rows_measured_nearest() -> None:
    times = (measured(256, 1, 0.5), measured(256, 2, 0.75), measured(256, 8, 2.0))
    assert cost_s(2, *times, num_inference_steps=1) == pytest.approx(0.75)
    assert cost_s(2, measured(256, 1, 0.5), num_inference_steps=1) == pytest.approx(1.0)


def test_a_size_that_nobody_measured_costs_as_much_a_pixel_as_the_nearest() -> None:
    times = (measured(128, 1, 0.1), measured(512, 1, 4.0))
    assert cost_s(1, *times, num_inference_steps=1, width=512, height=256) == pytest.approx(0.8)
    assert cost_s(1, *times, num_inference_steps=1, width=512, height=480) == pytest.approx(3.75)


def test_of_several_workers_the_fastest_counts() -> None:
    assert cost_s(1, measured(256, 1, 0.5), measured(256, 1, 0.2), num_inference_steps=1) == pytest.approx(0.2)


def test_another_models_times_say_nothing() -> None:
    prior_s = PRIOR_S_PER_MEGAPIXEL / 16
    assert cost_s(1, measured(256, 1, 9.0, "flux-dev"), num_inference_steps=1) == pytest.approx(prior_s)


@pytest.mark.parametrize(
    ("model", "guidance_scale", "true_cfg_scale", "rows"),
    [
        ("tiny-sd3", 3.5, 1.0, 2),
        ("tiny-sd3", 1.0, 1.0, 1),
        ("tiny-flux-dev", 3.5, 1.0, 1),
        ("tiny-flux-dev", 3.5, 2.0, 2),
        ("tiny-flux-schnell", 0.0, 1.0, 1),
    ],
)
def test_rows_of_an_image(model: str, guidance_scale: float, true_cfg_scale: float, rows: int) -> None:
    assert Catalog.load()[model].rows(guidance_scale, true_cfg_scale) == rows
