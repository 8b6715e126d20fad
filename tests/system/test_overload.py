"""Some seconds of ten times the load that there is capacity for. More: `make overload`."""

import logging
from pathlib import Path

import pytest

from tests.system.overload.run import Options, run

log = logging.getLogger(__name__)


@pytest.mark.system
@pytest.mark.timeout(400)
async def test_an_overloaded_server_tells_the_truth_and_stays_busy(tmp_path: Path) -> None:
    report = await run(Options(seconds=8), tmp_path)
    log.info("%s", report.figures())
    # So short a time tells the capacity less exactly.
    assert not report.failures(least_goodput=0.9), report.figures()
