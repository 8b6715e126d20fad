"""One contender under one mix: alone first, then at the rates that lead to its goodput, then at its goodput."""

import io
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import httpx
import numpy as np
from PIL import Image

from tests.benchmarks.serve.contenders.contender import Contender
from tests.benchmarks.serve.load import PATIENCE_S, Load, bear
from tests.benchmarks.serve.search import highest_rate
from tests.benchmarks.serve.slowdowns import LIMIT, WANTED, Summary, summarize
from tests.benchmarks.serve.workloads import Arrival, Mix, arrivals

_GIVE_UP_SHARE = 0.3

Say = Callable[[str], None]
Pixels = np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured. requests: at the goodput, over all seeds; search_requests: at each rate on the way there.

    tolerance: how near to each other a sustained rate and one that is not must be. repeats: of each class, alone.
    rates: where given, only these are measured, with `requests` at each, and nothing is searched.
    """

    requests: int
    search_requests: int
    seeds: tuple[int, ...]
    tolerance: float
    repeats: int
    rates: tuple[float, ...] = ()


@dataclass(slots=True)
class Result:
    """goodput: requests a second, confirmed by `confirmed`, which takes all seeds together; 0 when there is none."""

    solo_s: dict[str, float]
    goodput: float = 0.0
    confirmed: Summary | None = None
    points: list[Summary] = field(default_factory=list)


def examples(mix: Mix) -> list[Arrival]:
    """One request of each class, always the same."""
    found: dict[str, Arrival] = {}
    for arrival in arrivals(mix, 1.0, 200, seed=0):
        found.setdefault(arrival.kind.name, arrival)
    return [found[kind.name] for kind in mix.classes]


async def alone(contender: Contender, url: str, mix: Mix, repeats: int) -> tuple[dict[str, float], dict[str, Pixels]]:
    """Median seconds of each class on the idle server, after a first one to warm it; and what it draws."""
    seconds: dict[str, float] = {}
    pixels: dict[str, Pixels] = {}
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, trust_env=False) as client:
        for example in examples(mix):
            times = []
            for _ in range(repeats + 1):
                started_s = time.monotonic()
                picture = await contender.draw(client, example.body())
                times.append(picture.received_s - started_s)
            seconds[example.kind.name] = statistics.median(times[1:])
            pixels[example.kind.name] = np.asarray(Image.open(io.BytesIO(picture.png)).convert("RGB"))
    return seconds, pixels


async def goodput(
    contender: Contender,
    url: str,
    mix: Mix,
    result: Result,
    reference_s: Mapping[str, float],
    effort: Effort,
    say: Say,
) -> None:
    """Fill in the result: the rates tried, and the highest that attains its share with all seeds together."""
    limits_s = {kind: LIMIT * seconds for kind, seconds in reference_s.items()}
    capacity = 1 / sum(kind.share * reference_s[kind.name] for kind in mix.classes)

    give_up_share = 1.0 if effort.rates else _GIVE_UP_SHARE

    async def load(rate: float, count: int, seed: int) -> Load:
        return await bear(contender, url, arrivals(mix, rate, count, seed), limits_s, give_up_share)

    async def try_rate(rate: float, count: int, seeds: Sequence[int]) -> Summary:
        loads = []
        for seed in seeds:
            loads.append(await load(rate, count, seed))
            if not loads[-1].complete:
                break
        summary = summarize(rate, loads, reference_s)
        say(
            f"{contender.name} {mix.name} {rate:.2f}/s: {100 * summary.attainment:.1f} % within {LIMIT:g}x,"
            f" p95 {summary.latency_p95_s:.2f} s, batches of {summary.batch_size_mean:.1f},"
            f" {summary.failures} failures{'' if all(one.complete for one in loads) else ', given up'}"
        )
        if all(one.complete for one in loads):
            result.points.append(summary)
        return summary

    async def sustains(rate: float) -> bool:
        return (await try_rate(rate, effort.search_requests, effort.seeds[:1])).attainment >= WANTED

    each = -(-effort.requests // len(effort.seeds))
    for rate in sorted(effort.rates):
        summary = await try_rate(rate, each, effort.seeds)
        if summary.attainment >= WANTED:
            result.goodput, result.confirmed = rate, summary
    if effort.rates:
        return
    rate = await highest_rate(sustains, capacity / 2, effort.tolerance)
    while rate > capacity / 50:
        summary = await try_rate(rate, each, effort.seeds)
        if summary.attainment >= WANTED:
            result.goodput, result.confirmed = rate, summary
            return
        rate /= 1 + effort.tolerance
