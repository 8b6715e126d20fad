"""Request mixes and arrival times, for the simulator and for real servers alike.

Sizes are relative, so that a mix keeps its proportions on a model of any native size.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RequestClass:
    """One kind of request. share: of the mix. side: of the square image, in native sides of the model."""

    name: str
    share: float
    side: float
    num_inference_steps: int

    def pixels(self, native: int) -> int:
        """Side in pixels on a model of this native side."""
        return round(self.side * native)


@dataclass(frozen=True, slots=True)
class Arrival:
    arrival_s: float
    request_class: RequestClass


# mix-res is vLLM-Omni's Dataset C: https://github.com/vllm-project/vllm-omni
MIXES: dict[str, Sequence[RequestClass]] = {
    "mix-res": (
        RequestClass("512/20", 0.15, 0.5, 20),
        RequestClass("768/20", 0.25, 0.75, 20),
        RequestClass("1024/25", 0.45, 1.0, 25),
        RequestClass("1536/35", 0.15, 1.5, 35),
    ),
    "mix-steps": (
        RequestClass("1024/4", 0.5, 1.0, 4),
        RequestClass("1024/28", 0.4, 1.0, 28),
        RequestClass("1024/50", 0.1, 1.0, 50),
    ),
    "mix-small": (
        RequestClass("256/20", 0.8, 0.25, 20),
        RequestClass("512/20", 0.2, 0.5, 20),
    ),
}

BURST_CV = 4.0


def mean_gaps(cv: float, rng: random.Random) -> Iterator[float]:
    """Times between arrivals, 1 on average. cv: their coefficient of variation; 1 is Poisson, more is burstier."""
    shape = 1 / cv**2
    while True:
        yield rng.gammavariate(shape, 1 / shape)


def arrivals(mix: Sequence[RequestClass], count: int, rate_per_s: float, seed: int, cv: float = 1.0) -> list[Arrival]:
    """An open loop: when each request is sent, whatever the server does.

    Classes and gaps have random streams of their own, so that every rate sees the same requests in the same order.
    """
    classes, gaps = random.Random(f"classes {seed}"), mean_gaps(cv, random.Random(f"gaps {seed}"))
    chosen = classes.choices(mix, weights=[request_class.share for request_class in mix], k=count)
    now_s = 0.0
    result = []
    for request_class in chosen:
        now_s += next(gaps) / rate_per_s
        result.append(Arrival(now_s, request_class))
    return result
