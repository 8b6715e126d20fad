"""How long a call takes on a device: CUDA events where there are any, the clock where there are none."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

TARGET_S = 0.5
_CPU_TARGET_S = 0.05  # tiny models: nothing worth knowing well
_SLOW_S = 2.0


@dataclass(frozen=True, slots=True)
class Timing:
    """ms: median. launch_ms: median of the host's time until the call returned. first_ms: the call before them all.

    Where the device falls behind by more than its launch queue holds, launch_ms grows towards ms.
    """

    ms: float
    launch_ms: float
    first_ms: float
    repeats: int


def measure(call: Callable[[], object], device: torch.device) -> Timing:
    """Call once to warm up, once more to learn the time, then for about half a second (less on a CPU), at least twice.

    A call of more than two seconds is repeated once.
    """
    first_ms, _ = _once(call, device)
    samples = [_once(call, device)]
    wanted = 1 if samples[0][0] > 1000 * _SLOW_S else _repeats(samples[0][0], device)
    while len(samples) < wanted:
        samples.append(_once(call, device))
    return Timing(
        ms=statistics.median(ms for ms, _ in samples),
        launch_ms=statistics.median(launch_ms for _, launch_ms in samples),
        first_ms=first_ms,
        repeats=len(samples),
    )


def _repeats(ms: float, device: torch.device) -> int:
    target_s = TARGET_S if device.type == "cuda" else _CPU_TARGET_S
    return min(50, max(2, round(1000 * target_s / ms)))


@torch.inference_mode()
def _once(call: Callable[[], object], device: torch.device) -> tuple[float, float]:
    if device.type != "cuda":
        started_s = time.perf_counter()
        call()
        ms = (time.perf_counter() - started_s) * 1000
        return ms, ms
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    started_s = time.perf_counter()
    begin.record()
    call()
    end.record()
    launch_ms = (time.perf_counter() - started_s) * 1000
    torch.cuda.synchronize()
    return begin.elapsed_time(end), launch_ms
