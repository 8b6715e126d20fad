"""What slowdowns come to: means, tails and their intervals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK = 50  # neighbours in time slow each other down, so that they are resampled together
RESAMPLES = 400


@dataclass(frozen=True, slots=True)
class Estimate:
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True, slots=True)
class Summary:
    """Slowdowns of one policy under one load. class_*: by class of request. attainment: share with at most 3."""

    mean: Estimate
    p99: Estimate
    worst_class_p99: Estimate
    class_mean: Mapping[str, float]
    class_p99: Mapping[str, float]
    attainment: float
    mean_rows: float

    @property
    def fairness(self) -> float:
        """The worst class's p99 over the best one's."""
        return max(self.class_p99.values()) / min(self.class_p99.values())


def summarise(names: Sequence[str], slowdowns: Sequence[float], mean_rows: float) -> Summary:
    """names: the class of each request, in order of arrival, run after run."""
    values, kinds = np.asarray(slowdowns), np.asarray(names)
    classes = sorted(set(names))

    def class_p99(sample: NDArray[np.int64]) -> list[float]:
        picked, picked_kinds = values[sample], kinds[sample]
        return [float(np.quantile(picked[picked_kinds == name], 0.99)) for name in classes]

    everybody = np.arange(len(values))
    return Summary(
        mean=_estimate(lambda sample: float(values[sample].mean()), len(values)),
        p99=_estimate(lambda sample: float(np.quantile(values[sample], 0.99)), len(values)),
        worst_class_p99=_estimate(lambda sample: max(class_p99(sample)), len(values)),
        class_mean={name: float(values[kinds == name].mean()) for name in classes},
        class_p99=dict(zip(classes, class_p99(everybody), strict=True)),
        attainment=float((values <= 3).mean()),
        mean_rows=mean_rows,
    )


def goodput(attainment_by_load: Mapping[float, float], wanted: float = 0.9) -> float:
    """The highest load with the wanted attainment, on straight lines between the loads that were run; 0 below them."""
    best = 0.0
    points = sorted(attainment_by_load.items())
    for (load, attained), (next_load, next_attained) in zip(points, [*points[1:], points[-1]], strict=True):
        if attained < wanted:
            break
        best = load
        if next_attained < wanted:
            best += (next_load - load) * (attained - wanted) / (attained - next_attained)
    return best


def _estimate(statistic: Callable[[NDArray[np.int64]], float], count: int) -> Estimate:
    """A statistic with its 95 % bootstrap interval, in blocks."""
    rng = np.random.default_rng(0)
    starts = np.arange(0, count, BLOCK)
    resampled = []
    for _ in range(RESAMPLES):
        picked = rng.choice(starts, len(starts))
        sample = (picked[:, None] + np.arange(BLOCK)).ravel()
        resampled.append(statistic(sample[sample < count]))
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Estimate(statistic(np.arange(count)), float(low), float(high))
