"""The benchmarks' simulator against queueing theory, where that has the answer."""

import pytest

from tests.benchmarks.sched_sim.policies import POLICIES
from tests.benchmarks.sched_sim.simulator import Machine, requests_for, simulate
from tests.benchmarks.sched_sim.workloads import RequestClass, arrivals
from workers.engine.cost import TEXT_ENCODE_SIZE, CostModel, Stage, TableShape

LOAD = 0.8


def mean_slowdown(policy: str) -> float:
    """Of equal requests that arrive at random, on a machine where each row of a batch costs the same."""
    step_s, other_s, steps = 1.0, 1e-6, 8
    every = range(1, 65)
    seed = {
        TableShape(Stage.TEXT_ENCODE, "model", *TEXT_ENCODE_SIZE): {rows: other_s * rows for rows in every},
        TableShape(Stage.DENOISE, "model", 1024, 1024): {rows: step_s * rows for rows in every},
        TableShape(Stage.VAE_DECODE, "model", 1024, 1024): {rows: other_s * rows for rows in every},
    }
    machine = Machine(CostModel(seed))
    mix = [RequestClass("only", share=1.0, side=1.0, num_inference_steps=steps)]
    requests = requests_for(arrivals(mix, 10_000, LOAD / (steps * step_s), seed=1), machine, "model", 1024)
    simulate(requests, POLICIES[policy](machine, 64), machine)
    return sum(request.slowdown for request in requests) / len(requests)


@pytest.mark.parametrize(
    ("policy", "theory"),
    [
        ("first-come", 1 + LOAD / (2 * (1 - LOAD))),  # M/D/1, Pollaczek and Khinchine
        ("sharing", 1 / (1 - LOAD)),  # M/D/1 with processor sharing
    ],
)
def test_simple_policies_are_as_slow_as_theory_says(policy: str, theory: float) -> None:
    assert mean_slowdown(policy) == pytest.approx(theory, rel=0.15)


def test_ours_does_not_share_where_sharing_only_delays() -> None:
    assert mean_slowdown("ours") == pytest.approx(mean_slowdown("first-come"), rel=0.05)
