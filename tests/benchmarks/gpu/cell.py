"""One measurement of the plan."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

EAGER, COMPILED = "eager", "compiled"


@dataclass(frozen=True, slots=True)
class Cell:
    """identity: what is measured, as it stands in the results. predict_s: what measuring it will take, at a guess.

    measure returns the figures; it may raise torch.OutOfMemoryError.
    """

    section: str
    identity: Mapping[str, Any]
    predict_s: Callable[[], float]
    measure: Callable[[], Mapping[str, Any]]
