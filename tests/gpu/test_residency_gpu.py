"""Models that leave a GPU's memory and come back: nothing of them stays there, and the picture is the same."""

import pytest
import torch

from tests.benchmarks.parity import MODELS
from tests.gpu.cuda import NEEDS_CUDA, allocated_bytes, load
from tests.gpu.drawing import admit, draw, finish, make_engine
from tests.workers.requests import make_spec
from tests.workers.steps import draw_latents
from workers.engine.pipeline import StepPipeline
from workers.engine.residency import Residency

pytestmark = NEEDS_CUDA

# torch hands out memory in blocks of 512 bytes, so that each tensor may take so much more than its own size.
BLOCK_BYTES = 512


def draw_one(pipeline: StepPipeline, model: str) -> torch.Tensor:
    """(1, 64, 64, 3) uint8, by three steps."""
    latents = draw_latents(pipeline, make_spec(model=model))
    with torch.inference_mode():
        return pipeline.decode(latents, 64, 64)


@pytest.mark.parametrize("model", MODELS)
def test_a_model_that_left_draws_the_same_when_it_is_back(model: str) -> None:
    pipeline = load(model)
    before = draw_one(pipeline, model)
    for _ in range(3):
        with torch.inference_mode():  # as the engine moves them
            pipeline.to_host()
            pipeline.to_device()
        assert torch.equal(draw_one(pipeline, model), before)


@pytest.mark.parametrize("model", MODELS)
def test_nothing_of_a_model_stays_on_the_device(model: str) -> None:
    empty = allocated_bytes()
    pipeline = load(model)
    draw_one(pipeline, model)  # the libraries' own workspaces are allocated once
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
    assert torch.equal(draw_one(pipeline, "tiny-sd3"), draw_one(load("tiny-sd3"), "tiny-sd3"))


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


def test_an_engine_with_room_for_one_model_of_two_draws_both() -> None:
    names = ("tiny-flux-dev", "tiny-sd3")
    specs = {name: make_spec(model=name, height=128, width=128) for name in names}
    expected = {name: draw(make_engine({name: load(name)}), [specs[name]]).pixels[0] for name in names}
    pipelines = {name: load(name, parked=True) for name in names}
    sizes = {name: pipeline.weight_bytes for name, pipeline in pipelines.items()}
    engine = make_engine(pipelines, residency=Residency(sizes, max(sizes.values())))

    for name in names:  # whatever stays for good is there after that
        draw(engine, [specs[name]])
    pipelines[names[1]].to_host()
    nothing = allocated_bytes()
    pipelines[names[1]].to_device()
    for name in (*names, *names):
        (request,) = admit(engine, [specs[name]])
        (pixels,) = finish(engine, [request]).pixels
        assert torch.equal(pixels, expected[name])
        there = allocated_bytes() - nothing
        assert sizes[name] <= there <= sizes[name] + 2000 * BLOCK_BYTES, "it, and of the other nothing"
