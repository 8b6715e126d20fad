"""A step in float32 on half-precision weights, on a GPU: near what float32 weights give, and no weight is changed."""

from dataclasses import replace

import pytest
import torch

from tests.gpu.cuda import NEEDS_CUDA, load
from tests.workers.requests import make_spec
from tests.workers.steps import noise_batch

pytestmark = NEEDS_CUDA


# The bundled weights are kept in float16, so that float16 and float32 pipelines hold the same numbers.
@pytest.mark.parametrize("model", ["tiny-flux-dev", "tiny-sd3"])
@torch.inference_mode()
def test_it_is_what_float32_weights_give(model: str) -> None:
    half = load(model, torch.float16)
    full = load(model, torch.float32)
    batch = noise_batch(half, make_spec(model=model))
    exact = full.denoise(
        replace(
            batch,
            latents=batch.latents.float(),
            prompt_embeds=batch.prompt_embeds.float(),
            pooled_prompt_embeds=batch.pooled_prompt_embeds.float(),
        )
    )
    outside = half.denoise(batch)
    allocated_bytes = torch.cuda.memory_allocated()
    with half.in_float32():
        inside = half.denoise(batch)
        assert torch.cuda.memory_allocated() <= allocated_bytes + inside.nbytes + 1024, "all is narrow again"

    assert inside.dtype == torch.float16
    assert (inside - exact).abs().max() < 5e-3
    assert torch.equal(half.denoise(batch), outside) or outside.isnan().any()
