"""Who is on the device, who leaves, and what a switch is thought to take. A table of plain data; no tensor moves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.engine.residency import Residency

SIZES = {"a": 4, "b": 3, "c": 2}


def residents(residency: Residency) -> set[str]:
    return {model for model in SIZES if residency.is_resident(model)}


@pytest.mark.parametrize(
    ("budget", "brought", "leaving", "resident"),
    [
        pytest.param(9, "abc", ["", "", ""], "abc", id="all fit, to the byte"),
        pytest.param(8, "abc", ["", "", "a"], "bc", id="a byte less, and the first leaves"),
        pytest.param(7, "abac", ["", "", "", "b"], "ac", id="used again is used last"),
        pytest.param(4, "abca", ["", "a", "b", "c"], "a", id="one at a time"),
        pytest.param(5, "bca", ["", "", "bc"], "a", id="two leave, oldest first"),
        pytest.param(6, "bca", ["", "", "b"], "ac", id="no more leave than must"),
        pytest.param(9, "aa", ["", ""], "a", id="who is there makes nobody leave"),
        pytest.param(4, "aa", ["", ""], "a", id="nor itself"),
    ],
)
def test_the_least_recently_used_leave(budget: int, brought: str, leaving: list[str], resident: str) -> None:
    residency = Residency(SIZES, budget)
    assert [residency.bring(model) for model in brought] == [list(models) for models in leaving]
    assert residents(residency) == set(resident)


def test_with_a_budget_none_is_there_until_it_is_brought() -> None:
    assert residents(Residency(SIZES, 100)) == set()


def test_without_a_budget_all_are_there_and_stay() -> None:
    residency = Residency(SIZES, None)
    assert residents(residency) == {"a", "b", "c"}
    assert [residency.bring(model) for model in "cab"] == [[], [], []]
    assert residency.resident_bytes == 9


def test_a_model_that_can_never_fit_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match=r"a takes 4 bytes, more than the 3 bytes"):
        Residency(SIZES, 3)


def test_a_model_that_did_not_arrive_can_be_dropped() -> None:
    residency = Residency(SIZES, 4)
    residency.bring("a")
    residency.drop("a")
    residency.drop("b")
    assert residents(residency) == set()
    assert residency.bring("b") == []


def test_a_switch_is_estimated_by_size_then_by_its_last_moves() -> None:
    residency = Residency({"big": 24_000_000_000, "small": 1_000_000_000}, 24_000_000_000)
    assert residency.switch_s("big") == pytest.approx(2.4)
    residency.bring("big")
    residency.moved("big", 4.0)
    assert residency.switch_s("big") == 0.0
    assert residency.bring("small") == ["big"]
    assert residency.switch_s("big") == pytest.approx(4.0), "the first measurement replaces the guess"
    assert residency.switch_s("small") == 0.0
    residency.moved("big", 2.0)
    assert residency.switch_s("big") == pytest.approx(3.0), "later ones count half"
    residency.drop("small")
    assert residency.switch_s("small") == pytest.approx(0.1), "each model learns for itself"


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 9), min_size=1),
    st.integers(9, 30),
    st.lists(st.sampled_from("abcdef")),
)
def test_the_budget_holds_and_who_was_brought_is_there(sizes: dict[str, int], budget: int, brought: list[str]) -> None:
    residency = Residency(sizes, budget)
    there: set[str] = set()
    for model in filter(sizes.__contains__, brought):
        leaving = residency.bring(model)
        assert set(leaving) <= there - {model}
        there = there - set(leaving) | {model}
        assert all(residency.is_resident(name) == (name in there) for name in sizes)
        assert residency.resident_bytes == sum(sizes[name] for name in there) <= budget
