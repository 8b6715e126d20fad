"""The highest rate that a server sustains, found with few loads."""

from collections.abc import Awaitable, Callable

_STRIDE = 0.5
_LOWEST = 1 / 32  # of the first guess


async def highest_rate(sustains: Callable[[float], Awaitable[bool]], guess: float, tolerance: float) -> float:
    """Bracket from the guess in strides, then halve the bracket until its ends are within 1 + tolerance.

    0 when not even a thirty-second of the guess is sustained.
    """
    stride = 1 + max(_STRIDE, tolerance)
    low, high = 0.0, 0.0
    rate = guess
    while not low or not high:
        if await sustains(rate):
            low, rate = rate, rate * stride
        else:
            high, rate = rate, rate / stride
        if rate < guess * _LOWEST:
            return 0.0
    while high / low > 1 + tolerance:
        middle = (low * high) ** 0.5
        if await sustains(middle):
            low = middle
        else:
            high = middle
    return low
