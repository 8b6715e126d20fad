"""Models that leave a GPU's memory and come back: nothing of them stays there, and the picture is the same."""

import pytest
import torch

from app.catalog.catalog import Catalog
from tests.workers.requests import make_spec
from tests.workers.steps import draw_latents
from workers.engine.pipeline import StepPipeline
from workers.pipelines.load import load_pipeline
from workers.tiny.pipelines import NAMES

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and torch sees none"),
]

# torch hands out memory in blocks of 512 bytes, so that each tensor may take so much more than its own size.
BLOCK_BYTES = 512


def load(model: str, dtype: torch.dtype = torch.bfloat16, parked: bool = False) -> StepPipeline:
    return load_pipeline(Catalog.load()[model], None, torch.device("cuda"), dtype, parked)


def allocated_bytes() -> int:
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated()


def draw(pipeline: StepPipeline, model: str) -> torch.Tensor:
    """(1, 64, 64, 3) uint8, by three steps."""
    latents = draw_latents(pipeline, make_spec(model=model))
    with torch.inference_mode():
        return pipeline.decode(latents, 64, 64)


@pytest.mark.parametrize("model", NAMES)
def test_a_model_that_left_draws_the_same_when_it_is_back(model: str) -> None:
    pipeline = load(model)
    before = draw(pipeline, model)
    for _ in range(3):
        with torch.inference_mode():  # as the engine moves them
            pipeline.to_host()
            pipeline.to_device()
        assert torch.equal(draw(pipeline, model), before)


@pytest.mark.parametrize("model", NAMES)
def test_nothing_of_a_model_stays_on_the_device(model: str) -> None:
    empty = allocated_bytes()
    pipeline = load(model)
    draw(pipeline, model)  # the libraries' own workspaces are allocated once
    pipeline.to_host()
    workspace = allocated_bytes() - empty
    assert workspace < 128 * 2**20

    pipeline.to_device()
    there = allocated_bytes() - empty - workspace
    assert pipeline.weight_bytes <= there <= pipeline.weight_bytes + 2000 * BLOCK_BYTES
    pipeline.to_device()
    assert allocated_bytes() - empty - workspace == there, "a second move finds all in its place"

    reserved = torch.cuda.memory_reserved()
    pipeline.to_host()
    pipeline.to_host()
    assert allocated_bytes() - empty == workspace
    assert torch.cuda.memory_reserved() < reserved, "other processes may have it"


def test_a_parked_model_takes_no_device_memory_until_it_is_brought() -> None:
    before = allocated_bytes()
    pipeline = load("tiny-sd3", parked=True)
    assert allocated_bytes() == before
    pipeline.to_device()
    assert allocated_bytes() >= before + pipeline.weight_bytes
    assert torch.equal(draw(pipeline, "tiny-sd3"), draw(load("tiny-sd3"), "tiny-sd3"))


def test_a_preview_needs_no_weights_on_the_device() -> None:
    pipeline = load("tiny-flux-dev")
    latents = draw_latents(pipeline, make_spec(model="tiny-flux-dev"))
    shown = pipeline.preview(latents, 64, 64)
    pipeline.to_host()
    parked = pipeline.preview(latents, 64, 64)
    assert shown is not None
    assert parked is not None
    assert shown.device == parked.device == torch.device("cpu")
    assert torch.equal(shown, parked)
