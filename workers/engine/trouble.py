"""What can go wrong with a piece of work, and whose fault it is taken to be."""

import traceback
from collections.abc import Callable

import torch

from workers.engine.pipeline import NotNumbersError
from workers.engine.report import FailureReason


class DeviceLostError(Exception):
    """The device answers every call with an error from now on; only a new process helps."""


def attempt(work: Callable[[], None]) -> Exception | None:
    """Do it, or say what went wrong. Raises DeviceLostError."""
    try:
        work()
    except DeviceLostError:
        raise
    except Exception as error:  # taken to be one request's own trouble, until that one is found
        if isinstance(error, torch.AcceleratorError) and not lacks_memory(error):
            raise DeviceLostError("the device is lost") from error
        # The log wants to know where it happened; the frames' tensors would be in the next try's way.
        traceback.clear_frames(error.__traceback__)
        return error
    return None


def lacks_memory(trouble: Exception | None) -> bool:
    if isinstance(trouble, torch.OutOfMemoryError | MemoryError):
        return True
    # A library under torch, and torch itself on a CPU, raise what only their text tells apart.
    return isinstance(trouble, RuntimeError) and any(
        words in str(trouble) for words in ("out of memory", "DefaultCPUAllocator")
    )


def reason_of(trouble: Exception) -> FailureReason:
    if isinstance(trouble, NotNumbersError):
        return FailureReason.INVALID_OUTPUT
    return FailureReason.OUT_OF_MEMORY if lacks_memory(trouble) else FailureReason.INTERNAL_ERROR
