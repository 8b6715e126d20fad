"""A step in float32 on half-precision weights: right to the last bit, and the weights as they were."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from app.catalog.catalog import Catalog
from tests.workers.requests import make_spec
from tests.workers.steps import noise_batch
from workers.engine.batch import DenoiseBatch
from workers.engine.pipeline import StepPipeline
from workers.pipelines.flux import FluxStepPipeline
from workers.pipelines.load import load_pipeline
from workers.pipelines.sd3 import SD3StepPipeline

CPU = torch.device("cpu")
Opened = FluxStepPipeline | SD3StepPipeline
HALVES = (torch.bfloat16, torch.float16)
MODELS = ("tiny-flux-dev", "tiny-sd3")


def load(model: str, dtype: torch.dtype) -> Opened:
    pipeline = load_pipeline(Catalog.load()[model], None, CPU, dtype)
    assert isinstance(pipeline, Opened)
    return pipeline


def transformer_of(pipeline: Opened) -> nn.Module:
    transformer = pipeline._stock.transformer
    assert isinstance(transformer, nn.Module)
    return transformer


def weights_of(pipeline: Opened) -> dict[str, Tensor]:
    transformer = transformer_of(pipeline)
    return dict([*transformer.named_parameters(), *transformer.named_buffers()])


def in_float32(batch: DenoiseBatch) -> DenoiseBatch:
    return replace(
        batch,
        latents=batch.latents.float(),
        prompt_embeds=batch.prompt_embeds.float(),
        pooled_prompt_embeds=batch.pooled_prompt_embeds.float(),
    )


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("model", MODELS)
@torch.inference_mode()
def test_it_is_what_a_float32_copy_of_the_weights_gives(model: str, dtype: torch.dtype) -> None:
    half = load(model, dtype)
    # Not loaded as float32 but widened, as the kept weights are: what a half cannot hold is lost in both.
    copy = load(model, torch.float32)
    for name, tensor in weights_of(half).items():
        weights_of(copy)[name].copy_(tensor)
    batch = noise_batch(half, make_spec(model=model))
    exact = copy.denoise(in_float32(batch)).to(dtype)
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in weights_of(half).items()}

    outside = half.denoise(batch)
    with half.in_float32():
        inside = half.denoise(batch)

    assert inside.dtype == outside.dtype == dtype
    assert torch.equal(inside, exact)
    assert not torch.equal(outside, exact)
    for name, tensor in weights_of(half).items():
        data_ptr, values = before[name]
        assert tensor.data_ptr() == data_ptr, f"{name} is another tensor"
        assert torch.equal(tensor, values), name
    assert torch.equal(half.denoise(batch), outside) or outside.isnan().any(), "afterwards it is half again"


@pytest.mark.parametrize("model", MODELS)
@torch.inference_mode()
def test_what_overflows_float16_becomes_finite(model: str) -> None:
    """And stays wrong in float16: a retry in the dtype that failed would only fail again."""
    pipeline = load(model, torch.float16)
    batch = noise_batch(pipeline, make_spec(model=model))
    # Queries of a million and more: where they can be held, the norm after them makes them small again.
    weight = weights_of(pipeline)["transformer_blocks.0.attn.to_q.weight"]
    weight.mul_(6e4 / weight.abs().max())
    assert weight.isfinite().all()

    assert not pipeline.denoise(batch).isfinite().all()
    with pipeline.in_float32():
        assert pipeline.denoise(batch).isfinite().all()
    assert not pipeline.denoise(batch).isfinite().all()


@pytest.mark.parametrize("model", MODELS)
@torch.inference_mode()
def test_an_exception_within_leaves_the_weights_as_they_were(model: str) -> None:
    pipeline = load(model, torch.bfloat16)
    batch = noise_batch(pipeline, make_spec(model=model))
    outside = pipeline.denoise(batch)
    before = {name: tensor.data_ptr() for name, tensor in weights_of(pipeline).items()}
    too_narrow = replace(batch, prompt_embeds=batch.prompt_embeds[..., :5])

    with pipeline.in_float32(), pytest.raises(RuntimeError, match="shapes"):
        pipeline.denoise(too_narrow)
    with pytest.raises(KeyError), pipeline.in_float32():
        raise KeyError

    assert {name: tensor.data_ptr() for name, tensor in weights_of(pipeline).items()} == before
    assert {tensor.dtype for tensor in weights_of(pipeline).values()} == {torch.bfloat16}
    assert torch.equal(pipeline.denoise(batch), outside)


@torch.inference_mode()
def test_a_part_whose_forward_raises_is_narrow_again_at_once() -> None:
    """Its retry may come within the same context, and memory is for one part at a time."""
    pipeline = load("tiny-sd3", torch.bfloat16)
    batch = noise_batch(pipeline, make_spec(model="tiny-sd3"))
    with pipeline.in_float32():
        with pytest.raises(RuntimeError, match="shapes"):
            pipeline.denoise(replace(batch, prompt_embeds=batch.prompt_embeds[..., :5]))
        assert {tensor.dtype for tensor in weights_of(pipeline).values()} == {torch.bfloat16}


@pytest.mark.parametrize("model", MODELS)
@torch.inference_mode()
def test_float32_weights_are_left_alone(pipelines: Mapping[str, StepPipeline], model: str) -> None:
    pipeline = pipelines[model]
    batch = noise_batch(pipeline, make_spec(model=model))
    outside = pipeline.denoise(batch)
    with pipeline.in_float32():
        assert torch.equal(pipeline.denoise(batch), outside)


@torch.inference_mode()
def test_float64_weights_are_not_narrowed() -> None:
    pipeline = load("tiny-sd3", torch.float64)
    batch = noise_batch(pipeline, make_spec(model="tiny-sd3"))
    outside = pipeline.denoise(batch)
    with pipeline.in_float32():
        assert torch.equal(pipeline.denoise(batch), outside)
