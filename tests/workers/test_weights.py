"""Weights that leave for host memory and come back. What needs two memories is tested in tests/gpu."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from app.catalog.catalog import Catalog
from tests.benchmarks.parity import load_stock
from tests.workers.requests import make_spec
from tests.workers.steps import draw_latents
from workers.engine.pipeline import StepPipeline
from workers.pipelines.load import load_pipeline
from workers.pipelines.weights import Weights
from workers.tiny.pipelines import NAMES

CPU = torch.device("cpu")


def load(model: str, dtype: torch.dtype = torch.float32, parked: bool = False) -> StepPipeline:
    return load_pipeline(Catalog.load()[model], None, CPU, dtype, parked)


def tensors_of(stock: object) -> Iterator[Tensor]:
    for part in vars(stock).values():
        if isinstance(part, nn.Module):
            # Without what is tied to another of the same module.
            yield from part.parameters()
            yield from part.buffers()


@pytest.mark.parametrize("model", NAMES)
def test_weight_bytes_are_those_of_all_components(model: str) -> None:
    stock = load_stock(model)
    expected = sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(stock))
    assert load(model).weight_bytes == expected
    assert expected > sum(parameter.nbytes for parameter in stock.transformer.parameters())


def test_half_precision_weighs_half() -> None:
    full = load("tiny-sd3").weight_bytes
    assert 0.5 * full <= load("tiny-sd3", torch.bfloat16).weight_bytes < 0.51 * full


def test_tied_weights_count_once_and_stay_tied() -> None:
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    second.weight = first.weight
    weights = Weights([first, second], CPU)
    assert weights.size_bytes == 64
    weights.to_host()
    weights.to_device()
    assert second.weight is first.weight


@pytest.mark.parametrize("model", NAMES)
def test_moving_twice_is_moving_once_and_the_picture_is_the_same(model: str) -> None:
    spec = make_spec(model=model)
    pipeline = load(model)
    before = draw_latents(pipeline, spec)
    with torch.inference_mode():  # as the engine moves them
        for move in (pipeline.to_device, pipeline.to_host, pipeline.to_host, pipeline.to_device, pipeline.to_device):
            move()
    assert torch.equal(draw_latents(pipeline, spec), before)


def test_where_the_device_is_the_cpu_nothing_is_copied() -> None:
    module = nn.Linear(4, 4)
    before = [parameter.data_ptr() for parameter in module.parameters()]
    weights = Weights([module], CPU)
    for move in (weights.to_host, weights.to_device, weights.to_host):
        move()
        assert [parameter.data_ptr() for parameter in module.parameters()] == before


def test_a_parked_pipeline_draws_once_it_is_brought() -> None:
    spec = make_spec(model="tiny-flux-dev")
    parked = load("tiny-flux-dev", parked=True)
    parked.to_device()
    assert torch.equal(draw_latents(parked, spec), draw_latents(load("tiny-flux-dev"), spec))
