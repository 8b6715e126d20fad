"""Parameters as other programs read them."""

import pytest

from app.catalog.catalog import Guidance
from tests.conftest import make_job
from workers.infotext import infotext

SETTINGS = "Seed: 44, Size: 128x64, Model: tiny-sd3"


@pytest.mark.parametrize(
    ("guidance", "scales"),
    [
        (Guidance.CFG, "CFG scale: 3.5"),
        (Guidance.EMBEDDED, "CFG scale: 2.0, Distilled CFG Scale: 3.5"),
        (Guidance.NONE, "CFG scale: 2.0, Distilled CFG Scale: 3.5"),
    ],
)
def test_settings_are_one_line_after_the_prompt(guidance: Guidance, scales: str) -> None:
    job = make_job(prompt="a red ring", height=64, guidance_scale=3.5, true_cfg_scale=2.0)
    assert infotext(job, 44, guidance) == f"a red ring\nSteps: 4, Sampler: Euler, {scales}, {SETTINGS}"


def test_a_negative_prompt_has_its_own_line() -> None:
    lines = infotext(make_job(prompt="two\nlines", negative_prompt="blue"), 42, Guidance.CFG).splitlines()
    assert lines[:3] == ["two", "lines", "Negative prompt: blue"]
    assert lines[3].startswith("Steps: 4, ")
