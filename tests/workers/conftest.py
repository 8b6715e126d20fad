"""The bundled models, loaded once."""

from collections.abc import Iterator, Mapping

import pytest
import torch
from diffusers import DiffusionPipeline

from tests.benchmarks.parity import MODELS, load_bundled, load_stock
from workers.engine.pipeline import StepPipeline


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from threads, and lose much when the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pipelines() -> Mapping[str, StepPipeline]:
    return load_bundled()


@pytest.fixture(scope="session")
def stocks() -> Mapping[str, DiffusionPipeline]:
    return {model: load_stock(model) for model in MODELS}
