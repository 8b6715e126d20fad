"""The device of these tests, what they are marked with, and memory that is taken from it on purpose."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch

from app.catalog.catalog import Catalog
from workers.engine.pipeline import StepPipeline
from workers.pipelines.load import load_pipeline

CUDA = torch.device("cuda")

NEEDS_CUDA = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and torch sees none"),
]


def load(model: str, dtype: torch.dtype = torch.bfloat16, parked: bool = False) -> StepPipeline:
    return load_pipeline(Catalog.load()[model], None, CUDA, dtype, parked)


def allocated_bytes() -> int:
    gc.collect()  # models of earlier tests may hang in cycles
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated()


@contextmanager
def memory_left(left_bytes: int) -> Iterator[None]:
    """All of the device's free memory but this much is taken."""
    gc.collect()
    torch.cuda.empty_cache()
    free_bytes, _ = torch.cuda.mem_get_info()
    ballast = [torch.empty(free_bytes - left_bytes, dtype=torch.uint8, device=CUDA)]
    try:
        yield
    finally:
        ballast.clear()
        torch.cuda.empty_cache()


def needed_bytes(work: Callable[[], object]) -> int:
    """How little free memory `work` gets by with, to a sixtieth.

    That is less than it takes when there is more: cuDNN has algorithms that need less room for themselves.
    """
    work()  # workspaces are allocated and kernels loaded once
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    work()
    enough = torch.cuda.max_memory_reserved() - before + 32 * 2**20
    too_little = enough // 4
    for _ in range(6):
        middle = (too_little + enough) // 2
        if _fits(work, middle):
            enough = middle
        else:
            too_little = middle
    return enough


def _fits(work: Callable[[], object], left_bytes: int) -> bool:
    with memory_left(left_bytes):
        try:
            work()
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError):
                print(f"\nout of memory shows as {type(error).__name__}: {error}")
            return False
    return True
