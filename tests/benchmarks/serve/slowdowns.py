"""What a load's outcomes say. Pure arithmetic.

slowdown: a latency over the reference, the time that the stock pipeline's own idle, warm server takes for a request of
that class; one reference for all, so that nobody gains by being slow alone. attainment: the share of requests whose
slowdown is at most LIMIT; a request without a picture is a miss.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.benchmarks.serve.load import Load, Outcome

LIMIT = 3.0
WANTED = 0.9
_RESAMPLES = 1000
_BLOCK = 20  # requests that wait in one queue are late together, so that they are resampled together


@dataclass(frozen=True, slots=True)
class ClassSummary:
    """Slowdowns of one class; infinite where so many requests failed."""

    count: int
    mean: float
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Summary:
    """A load at one rate. Latencies in seconds. throughput: pictures a second. unfairness: worst class p99 over best.

    batch_size_mean, batch_size_max: of the largest batches that the pictures were part of.
    """

    rate: float
    count: int
    failures: int
    attainment: float
    attainment_low: float
    attainment_high: float
    throughput: float
    latency_p50_s: float
    latency_p95_s: float
    latency_p99_s: float
    slowdown_mean: float
    slowdown_p95: float
    slowdown_p99: float
    unfairness: float
    sent_late_p99_s: float
    batch_size_mean: float
    batch_size_max: int
    classes: dict[str, ClassSummary]
    errors: dict[str, int]


def summarize(rate: float, loads: Sequence[Load], reference_s: Mapping[str, float]) -> Summary:
    """Take the loads of several seeds together. What was never sent, because too many were late, is a miss."""
    outcomes = [outcome for load in loads for outcome in load.outcomes]
    count = sum(load.count for load in loads)
    slowdowns = [slowdown(outcome, reference_s) for outcome in outcomes]
    within = [value <= LIMIT for value in slowdowns] + [False] * (count - len(outcomes))
    low, high = interval(within)
    classes = {
        kind: _class_summary([s for s, outcome in zip(slowdowns, outcomes, strict=True) if outcome.kind == kind])
        for kind in reference_s
        if any(outcome.kind == kind for outcome in outcomes)
    }
    latencies = [math.inf if outcome.latency_s is None else outcome.latency_s for outcome in outcomes]
    batches = [outcome.batch_size for outcome in outcomes if outcome.latency_s is not None] or [0]
    p99s = [summary.p99 for summary in classes.values()]
    errors = [outcome.error for outcome in outcomes if outcome.error]
    return Summary(
        rate=rate,
        count=count,
        failures=len(errors),
        attainment=sum(within) / count,
        attainment_low=low,
        attainment_high=high,
        throughput=(len(outcomes) - len(errors)) / sum(load.seconds for load in loads),
        latency_p50_s=percentile(latencies, 0.5),
        latency_p95_s=percentile(latencies, 0.95),
        latency_p99_s=percentile(latencies, 0.99),
        slowdown_mean=sum(slowdowns) / len(slowdowns),
        slowdown_p95=percentile(slowdowns, 0.95),
        slowdown_p99=percentile(slowdowns, 0.99),
        unfairness=max(p99s) / min(p99s),
        sent_late_p99_s=percentile([outcome.sent_late_s for outcome in outcomes], 0.99),
        batch_size_mean=sum(batches) / len(batches),
        batch_size_max=max(batches),
        classes=classes,
        errors={error: errors.count(error) for error in set(errors)},
    )


def slowdown(outcome: Outcome, reference_s: Mapping[str, float]) -> float:
    return math.inf if outcome.latency_s is None else outcome.latency_s / reference_s[outcome.kind]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def interval(within: Sequence[bool]) -> tuple[float, float]:
    """95 % bootstrap interval of the share, from blocks of requests that followed each other."""
    rng = random.Random(0)
    blocks = [within[i : i + _BLOCK] for i in range(0, len(within), _BLOCK)]
    shares = []
    for _ in range(_RESAMPLES):
        sample = rng.choices(blocks, k=len(blocks))
        shares.append(sum(map(sum, sample)) / sum(map(len, sample)))
    return percentile(shares, 0.025), percentile(shares, 0.975)


def _class_summary(slowdowns: Sequence[float]) -> ClassSummary:
    return ClassSummary(
        count=len(slowdowns),
        mean=sum(slowdowns) / len(slowdowns),
        p50=percentile(slowdowns, 0.5),
        p95=percentile(slowdowns, 0.95),
        p99=percentile(slowdowns, 0.99),
    )
