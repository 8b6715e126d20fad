"""A checkpoint taken on a GPU goes on there to the very same picture, as in a new process after a crash."""

import pytest
import torch

from tests.benchmarks.parity import MODELS
from tests.gpu.cuda import NEEDS_CUDA, load
from tests.gpu.drawing import admit, draw, finish, make_engine
from tests.workers.requests import make_spec
from workers.engine.checkpoint import from_bytes, to_bytes
from workers.engine.request import DenoiseRequest

pytestmark = NEEDS_CUDA


@pytest.mark.parametrize("model", MODELS)
def test_it_resumes_to_the_same_pixels(model: str) -> None:
    spec = make_spec(model=model, num_inference_steps=8)
    (expected,) = draw(make_engine({model: load(model)}), [spec]).pixels

    interrupted = make_engine({model: load(model)}, checkpoint_every_s=0.0)
    admit(interrupted, [spec])
    (saved,) = [saved for _ in range(5) for saved in interrupted.step().saved][-1:]
    checkpoint = from_bytes(to_bytes(saved.checkpoint, "of the test"), "of the test")
    assert checkpoint is not None
    assert (checkpoint.step_index, checkpoint.latents.dtype) == (5, torch.bfloat16)
    assert checkpoint.latents.device == torch.device("cpu")

    engine = make_engine({model: load(model)})
    resumed = DenoiseRequest("resumed", spec, 0.0, resume=checkpoint)
    assert not engine.admit([resumed]).failed
    outcome = finish(engine, [resumed])
    assert (resumed.resumed_step, len(outcome.reports)) == (5, 4), "three steps and a decode"
    assert torch.equal(outcome.pixels[0], expected)
