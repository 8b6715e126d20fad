"""The cost model: what it learns, how fast, and what it guesses."""

import json
import subprocess
import sys
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.engine.cost import (
    FORGET_AFTER,
    MAX_CURVES,
    PRIOR_FURTHER_ROW,
    PRIOR_S_PER_MEGAPIXEL,
    CostModel,
    Stage,
    step_table,
)


class Size(NamedTuple):
    model: str
    height: int
    width: int
    text_length: int = 512


FLUX = Size("flux", 1024, 1024)


def learnt(seconds_by_rows: dict[int, float], key: Size = FLUX, times: int = 5) -> CostModel:
    cost = CostModel()
    for rows, seconds in seconds_by_rows.items():
        for _ in range(times):
            cost.observe(Stage.DENOISE, key, rows, seconds)
    return cost


def test_nothing_known_is_the_prior() -> None:
    cost = CostModel()
    first = PRIOR_S_PER_MEGAPIXEL[Stage.DENOISE]
    assert cost.seconds(Stage.DENOISE, FLUX, 1) == pytest.approx(first)
    assert cost.seconds(Stage.DENOISE, FLUX, 3) == pytest.approx(first * (1 + 2 * PRIOR_FURTHER_ROW))
    assert cost.seconds(Stage.DENOISE, Size("flux", 512, 512), 1) == pytest.approx(first / 4)


@pytest.mark.parametrize(("rows", "seconds"), [(1, 0.1), (2, 0.1), (3, 0.15), (4, 0.2), (6, 0.3), (8, 0.4)])
def test_measured_rows_are_known_those_between_lie_on_a_line_and_those_beyond_on_its_slope(
    rows: int, seconds: float
) -> None:
    cost = learnt({1: 0.1, 2: 0.1, 4: 0.2})
    assert cost.seconds(Stage.DENOISE, FLUX, rows) == pytest.approx(seconds)


def test_fewer_rows_than_ever_measured_cost_at_least_their_fair_share() -> None:
    assert learnt({4: 0.4, 5: 0.45}).seconds(Stage.DENOISE, FLUX, 2) == pytest.approx(0.3)
    assert learnt({4: 0.4, 5: 0.9}).seconds(Stage.DENOISE, FLUX, 2) == pytest.approx(0.2)


def test_one_measured_size_sets_the_pace_and_the_guess_goes_on_from_there() -> None:
    cost = learnt({2: 0.3})
    assert cost.seconds(Stage.DENOISE, FLUX, 2) == pytest.approx(0.3)
    assert cost.seconds(Stage.DENOISE, FLUX, 1) == pytest.approx(0.3 / (1 + PRIOR_FURTHER_ROW))


@pytest.mark.parametrize("seconds", [1.0, 0.01])
def test_one_outlier_in_a_known_batch_moves_nothing(seconds: float) -> None:
    cost = learnt({1: 0.1, 2: 0.2})
    cost.observe(Stage.DENOISE, FLUX, 2, seconds)
    assert cost.seconds(Stage.DENOISE, FLUX, 2) == pytest.approx(0.2)


def test_a_slow_first_run_is_forgiven_at_the_second() -> None:
    cost = CostModel()
    cost.observe(Stage.DENOISE, FLUX, 1, 30.0)  # compiles
    cost.observe(Stage.DENOISE, FLUX, 1, 0.1)
    assert cost.seconds(Stage.DENOISE, FLUX, 1) == pytest.approx(0.1)


@pytest.mark.parametrize("factor", [0.5, 2.0, 10.0])
def test_a_lasting_change_is_learnt_in_ten_steps(factor: float) -> None:
    cost = learnt({1: 0.1, 2: 0.2}, times=50)
    for _ in range(10):
        cost.observe(Stage.DENOISE, FLUX, 1, 0.1 * factor)
        cost.observe(Stage.DENOISE, FLUX, 2, 0.2 * factor)
    assert cost.seconds(Stage.DENOISE, FLUX, 2) == pytest.approx(0.2 * factor)


def test_a_tremble_draws_no_new_curve() -> None:
    cost = learnt({1: 0.1, 2: 0.2})
    before = cost.curve(Stage.DENOISE, FLUX)
    for _ in range(20):
        cost.observe(Stage.DENOISE, FLUX, 1, 0.1015)
    assert cost.curve(Stage.DENOISE, FLUX) is before


def test_a_batch_size_not_run_for_long_is_forgotten() -> None:
    """Rows that were slow for a while, and are shunned since, get another chance."""
    cost = learnt({1: 0.1, 2: 0.12, 8: 5.0})
    for _ in range(FORGET_AFTER):
        cost.observe(Stage.DENOISE, FLUX, 1, 0.1)
        cost.observe(Stage.DENOISE, FLUX, 2, 0.12)
    assert cost.seconds(Stage.DENOISE, FLUX, 8) == pytest.approx(0.24)


@pytest.mark.parametrize(
    ("size", "rows", "seconds"),
    [
        (Size("flux", 512, 512), 4, 0.1),  # as many pixels as one large image
        (Size("flux", 512, 512), 8, 0.16),
        (Size("flux", 2048, 1024), 1, 0.16),
        (Size("flux", 1024, 1024, text_length=128), 1, 0.1),
    ],
)
def test_an_unseen_shape_borrows_from_the_nearest_by_pixels(size: Size, rows: int, seconds: float) -> None:
    cost = learnt({1: 0.1, 2: 0.16})
    for more_rows in (1, 2):
        cost.observe(Stage.DENOISE, Size("flux", 4096, 4096), more_rows, 50.0 * more_rows)
    assert cost.seconds(Stage.DENOISE, size, rows) == pytest.approx(seconds)


def test_a_lender_measured_once_goes_on_as_the_prior() -> None:
    assert learnt({1: 0.2}).seconds(Stage.DENOISE, Size("flux", 512, 512), 8) == pytest.approx(0.3)


def test_a_shape_measured_once_goes_on_as_the_nearest_shape() -> None:
    cost = learnt({1: 0.1, 2: 0.1, 4: 0.1})
    small = Size("flux", 512, 512)
    cost.observe(Stage.DENOISE, small, 1, 0.07)
    assert cost.seconds(Stage.DENOISE, small, 16) == pytest.approx(0.07)


def test_what_is_borrowed_follows_its_lender() -> None:
    cost = learnt({1: 0.1, 2: 0.2})
    other = Size("flux", 1024, 1024, text_length=128)
    assert cost.seconds(Stage.DENOISE, other, 1) == pytest.approx(0.1)
    for _ in range(10):
        cost.observe(Stage.DENOISE, FLUX, 1, 0.05)
    assert cost.seconds(Stage.DENOISE, other, 1) == pytest.approx(0.05)


def test_models_and_stages_borrow_nothing_from_each_other() -> None:
    cost = learnt({1: 7.0, 2: 14.0})
    assert cost.seconds(Stage.DENOISE, Size("sd3", 1024, 1024), 1) < 1
    assert cost.seconds(Stage.VAE_DECODE, FLUX, 1) < 1


def test_prompts_of_a_model_share_a_curve_whatever_the_size_of_their_images() -> None:
    cost = CostModel()
    small = Size("flux", 256, 256, 77)
    for key, seconds in ((FLUX, 0.7), (FLUX, 0.7), (small, 7.0)):
        cost.observe(Stage.TEXT_ENCODE, key, 1, seconds)
    assert cost.seconds(Stage.TEXT_ENCODE, small, 1) == pytest.approx(0.7)


def test_a_seed_is_believed_until_measurements_outvote_it() -> None:
    rows = '[{"model": "flux", "height": 1024, "width": 1024, "rows": %d, "ms": %d}]'
    table = step_table(json.loads(rows % (1, 100)) + json.loads(rows % (4, 200)))
    cost = CostModel(table)
    assert cost.seconds(Stage.DENOISE, FLUX, 1) == 0.1
    assert cost.seconds(Stage.DENOISE, FLUX, 2) == pytest.approx(0.4 / 3)
    assert cost.seconds(Stage.DENOISE, Size("flux", 512, 512), 4) == pytest.approx(0.1)
    cost.observe(Stage.DENOISE, FLUX, 1, 0.01)
    assert cost.seconds(Stage.DENOISE, FLUX, 1) == 0.1
    assert cost.seconds(Stage.DENOISE, FLUX, 4) == 0.2
    for _ in range(6):
        cost.observe(Stage.DENOISE, FLUX, 1, 0.15)
    assert cost.seconds(Stage.DENOISE, FLUX, 1) == 0.15


@pytest.mark.parametrize("stage", Stage)
def test_a_table_names_its_stages(stage: Stage) -> None:
    entry = {"model": "flux", "height": 1024, "width": 1024, "rows": 1, "ms": 5, "stage": str(stage)}
    assert CostModel(step_table([entry])).seconds(stage, FLUX, 1) == pytest.approx(0.005)


def test_ever_new_sizes_push_out_those_measured_longest_ago() -> None:
    cost = CostModel(max_rows=2)
    first, kept = Size("flux", 64, 64), Size("flux", 80, 80)
    cost.observe(Stage.DENOISE, first, 1, 5.0)
    cost.observe(Stage.DENOISE, kept, 1, 7.0)
    for side in range(1, MAX_CURVES):
        cost.observe(Stage.DENOISE, Size("flux", 1024, 1024 + side), 1, 1.0)
        cost.observe(Stage.DENOISE, kept, 1, 7.0)
    assert cost.seconds(Stage.DENOISE, kept, 1) == 7.0
    assert cost.seconds(Stage.DENOISE, first, 1) != 5.0, "borrowed now"


def test_nothing_takes_no_time() -> None:
    assert learnt({1: 0.0}).seconds(Stage.DENOISE, FLUX, 1) > 0


@given(
    st.lists(st.tuples(st.sampled_from(Stage), st.integers(1, 32), st.floats(0, 100)), max_size=60),
    st.sampled_from([FLUX, Size("flux", 512, 768), Size("flux", 64, 64), Size("sd3", 1024, 1024)]),
)
def test_more_rows_never_take_less_time(measured: list[tuple[Stage, int, float]], asked: Size) -> None:
    cost = CostModel(max_rows=32)
    for stage, rows, seconds in measured:
        cost.observe(stage, FLUX, rows, seconds)
    for stage in Stage:
        curve = cost.curve(stage, asked)
        assert len(curve) == 33
        assert curve[0] == 0 < curve[1]
        assert all(more >= less * (1 - 1e-9) for less, more in pairwise(curve))


def test_it_needs_no_torch() -> None:
    code = "import sys, workers.engine.cost; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
