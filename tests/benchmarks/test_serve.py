"""The serve benchmark's own parts: its arrivals, its open loop, its arithmetic and its search."""

import asyncio
import itertools
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.benchmarks.serve.contenders.contender import DrawError, Picture
from tests.benchmarks.serve.load import Load, Outcome, bear
from tests.benchmarks.serve.search import highest_rate
from tests.benchmarks.serve.slowdowns import interval, percentile, summarize
from tests.benchmarks.serve.workloads import MIXES, Arrival, Mix, RequestClass, arrivals

ROOT = Path(__file__).parents[2]
_DRAW_S = 0.05
_KIND = RequestClass(64, 4, 1.0)


class OneAtATime:
    """A server in this process that takes 50 ms for a picture, and refuses the seeds it is told to."""

    name = "one"

    def __init__(self, *refused: int) -> None:
        self._refused = refused
        self._turn = asyncio.Lock()
        self._held = 0
        self.most_held = 0

    @contextmanager
    def running(self, folder: Path) -> Iterator[str]:
        yield "http://127.0.0.1"

    async def draw(self, client: httpx.AsyncClient, body: Mapping[str, object]) -> Picture:
        if body["seed"] in self._refused:
            raise DrawError("refused")
        self._held += 1
        self.most_held = max(self.most_held, self._held)
        async with self._turn:
            await asyncio.sleep(_DRAW_S)
            self._held -= 1
            return Picture(b"\x89PNG\r\n\x1a\n", time.monotonic(), 1)


def at_once(count: int) -> list[Arrival]:
    return [Arrival(0.0, _KIND, "a red ring", seed) for seed in range(count)]


async def test_requests_are_sent_whatever_became_of_those_before() -> None:
    server = OneAtATime()
    load = await bear(server, "http://127.0.0.1", at_once(4), {_KIND.name: 60.0}, 1.0)
    assert load.complete
    assert server.most_held == 4
    for place, outcome in enumerate(load.outcomes):
        assert outcome.latency_s is not None
        assert outcome.latency_s >= (place + 1) * _DRAW_S


async def test_a_latency_counts_from_when_the_request_was_due() -> None:
    overslept = [Arrival(-5.0, _KIND, "a red ring", 1)]
    load = await bear(OneAtATime(), "http://127.0.0.1", overslept, {_KIND.name: 60.0}, 1.0)
    assert load.outcomes[0].sent_late_s >= 5.0
    assert load.outcomes[0].latency_s is not None
    assert load.outcomes[0].latency_s >= 5.0


async def test_a_load_that_is_lost_is_cut_short_and_what_was_not_sent_is_a_miss() -> None:
    late = [Arrival(3600.0, _KIND, "a red ring", 9)]
    load = await bear(OneAtATime(), "http://127.0.0.1", at_once(4) + late, {_KIND.name: 0.0}, 0.3)
    assert (len(load.outcomes), load.count, load.complete) == (4, 5, False)
    assert summarize(1.0, [load], {_KIND.name: 3600.0}).attainment == 0.8


async def test_a_failure_is_a_miss() -> None:
    load = await bear(OneAtATime(2), "http://127.0.0.1", at_once(4), {_KIND.name: 60.0}, 1.0)
    summary = summarize(1.0, [load], {_KIND.name: 60.0})
    assert (summary.failures, summary.attainment, summary.errors) == (1, 0.75, {"DrawError: refused": 1})
    assert summary.latency_p99_s == math.inf


@pytest.mark.parametrize("name", MIXES)
def test_arrivals_come_at_their_rate_in_their_proportions_and_bursts(name: str) -> None:
    mix = MIXES[name]
    drawn = arrivals(mix, 5.0, 8000, seed=3)
    gaps = [later.due_s - sooner.due_s for sooner, later in itertools.pairwise(drawn)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(1 / 5.0, rel=0.15)
    assert deviation / mean == pytest.approx(mix.arrival_cv, rel=0.15)
    for kind in mix.classes:
        assert sum(one.kind == kind for one in drawn) / 8000 == pytest.approx(kind.share, abs=0.02)


def test_a_seed_gives_the_same_requests_at_every_rate() -> None:
    slow, fast = (arrivals(MIXES["burst"], rate, 50, seed=1) for rate in (1.0, 4.0))
    assert [one.body() for one in slow] == [one.body() for one in fast]
    assert [one.due_s for one in slow] == pytest.approx([4 * one.due_s for one in fast])
    assert arrivals(MIXES["burst"], 1.0, 50, seed=2)[0].body() != slow[0].body()


def test_slowdowns_are_measured_by_the_reference_of_their_class() -> None:
    short, long = RequestClass(64, 4, 0.5), RequestClass(64, 50, 0.5)
    mix = Mix("two", (short, long))
    outcomes = tuple(
        Outcome(kind.name, 0.0, latency_s, 0.0, 2) for kind in mix.classes for latency_s in (0.2, 0.3, 0.4, 2.0)
    )
    summary = summarize(2.0, [Load(outcomes, 8, 4.0, True)], {short.name: 0.1, long.name: 1.0})
    assert summary.attainment == 6 / 8
    assert summary.classes[short.name].p50 == pytest.approx(3.0)
    assert summary.classes[long.name].p99 == pytest.approx(2.0)
    assert summary.unfairness == pytest.approx(10.0)
    assert summary.throughput == 2.0


def test_a_percentile_is_a_value_that_was_seen() -> None:
    assert [percentile([3.0, 1.0, 2.0, 4.0], share) for share in (0.0, 0.5, 0.51, 1.0)] == [1.0, 2.0, 3.0, 4.0]


def test_the_interval_is_wide_where_misses_come_together() -> None:
    scattered = [i % 10 != 0 for i in range(1000)]
    together = [i >= 100 for i in range(1000)]
    assert interval(scattered) == (0.9, 0.9)
    low, high = interval(together)
    assert low < 0.86
    assert high > 0.94


@pytest.mark.parametrize("capacity", [0.2, 1.0, 3.3, 20.0])
async def test_the_search_ends_within_its_tolerance(capacity: float) -> None:
    async def sustains(rate: float) -> bool:
        return rate <= capacity

    found = await highest_rate(sustains, 1.0, 0.1)
    assert capacity / 1.1 <= found <= capacity


async def test_the_search_ends_where_nothing_is_sustained() -> None:
    async def sustains(rate: float) -> bool:
        return False

    assert await highest_rate(sustains, 1.0, 0.1) == 0.0


@pytest.mark.bench
@pytest.mark.timeout(900)
def test_the_benchmark_runs_from_end_to_end(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.serve", "--quick", "--out", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["serve-mix-steps.json", "serve-mix-steps.png"]
    results = json.loads((tmp_path / "serve-mix-steps.json").read_text())["results"]
    assert list(results) == ["one-at-a-time", "darkroom"]
    for result in results.values():
        assert [(point["count"], point["failures"]) for point in result["points"]] == [(6, 0), (6, 0)]
    assert max(point["batch_size_max"] for point in results["darkroom"]["points"]) > 1
