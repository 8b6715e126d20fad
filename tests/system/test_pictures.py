"""Pictures against their prompts, through the whole server: what a mixed-up batch draws is another's picture."""

import io
import random
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.system.up import Up
from workers.tiny.adherence import score
from workers.tiny.prompts import held_out_prompts
from workers.tiny.reading import read_scene

# A model, and the steps and guidance at which it is good.
MODELS = {
    "tiny-flux-schnell": ((4, 6), (0.0, 0.0)),
    "tiny-flux-dev": ((16, 28), (2.5, 5.0)),
    "tiny-sd3": ((16, 28), (2.5, 5.0)),
}
SIZES = ((128, 128), (128, 128), (192, 128))


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    others = [name for name in MODELS if name != "tiny-flux-schnell"]
    running = Up(tmp_path_factory.mktemp("up"), *(word for name in others for word in ("--model", name)))
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.end()


def test_in_a_busy_mixed_batch_every_picture_shows_its_own_prompt(up: Up) -> None:
    rng = random.Random(0)
    prompts = [*held_out_prompts(24, figures=1), *held_out_prompts(12, figures=2)]
    rng.shuffle(prompts)
    jobs = []
    for seed, prompt in enumerate(prompts):
        model = rng.choice(list(MODELS))
        (least, most), scales = MODELS[model]
        width, height = rng.choice(SIZES)
        body = {
            "model": model,
            "prompt": prompt.text,
            "seed": seed,
            "num_inference_steps": rng.randint(least, most),
            "guidance_scale": rng.uniform(*scales),
            "width": width,
            "height": height,
        }
        answer = httpx.post(f"{up.url}/v1/images", json=body)
        assert answer.status_code == 202, answer.text
        jobs.append(answer.json()["urls"]["self"])
    up.finish(jobs, within_s=90)

    readings = [read_scene(_picture(job)) for job in jobs]
    own = [score(prompt.facts, reading)["joint"] for prompt, reading in zip(prompts, readings, strict=True)]
    assert sum(own) >= 0.75 * len(own), own
    for i, reading in enumerate(readings):
        for j, prompt in enumerate(prompts):
            assert i == j or not score(prompt.facts, reading)["joint"], f"{i} shows what {j} asked for"
    assert max(httpx.get(job).json()["parameters"]["largest_batch"] for job in jobs) >= 6, "they must have had company"


def _picture(job: str) -> np.ndarray:
    content = httpx.get(f"{job}/content?index=0").content
    return np.asarray(Image.open(io.BytesIO(content), formats=["PNG"]).convert("RGB"))
