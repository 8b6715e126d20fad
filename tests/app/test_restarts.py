"""When a process that died may start again."""

import pytest

from app.cli.restarts import Restarts


@pytest.mark.parametrize(
    ("deaths", "delays"),
    [
        pytest.param([0, 1, 2, 3, 4], [0.5, 1, 2, 4, None], id="five in a row"),
        pytest.param([0, 20, 40, 59.9, 59.95], [0.5, 1, 2, 4, None], id="five within a minute"),
        pytest.param([0, 20, 40, 50, 60.1], [0.5, 1, 2, 4, 8], id="four within any minute"),
        pytest.param([0, 20, 40, 61, 81, 101, 122], [0.5, 1, 2, 4, 8, 10, 10], id="ten seconds at most"),
    ],
)
def test_delays_double_until_too_many(deaths: list[float], delays: list[float | None]) -> None:
    restarts = Restarts()
    assert [restarts.died(at_s, started_s=at_s) for at_s in deaths] == delays


def test_a_long_life_starts_the_delays_over() -> None:
    restarts = Restarts()
    assert [restarts.died(at_s, started_s=at_s) for at_s in (0, 1)] == [0.5, 1.0]
    assert restarts.died(70, started_s=10) == 0.5
    assert restarts.died(71, started_s=71) == 1.0
