"""A worker and a gateway whose clocks are an hour off: all times are the queue server's, and nothing goes wrong."""

import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.system.processes import gateway, worker

pytestmark = pytest.mark.system

# libfaketime, Debian's package `faketime`: it hands a process another time of day.
_LIBRARIES = sorted(Path("/usr").glob("lib*/**/faketime/libfaketimeMT.so.1"))
_HOUR_S = 3600


def off_by(hours: int) -> dict[str, str]:
    return {
        "LD_PRELOAD": str(_LIBRARIES[0]),
        "FAKETIME": f"{hours:+d}h",
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }


@pytest.mark.skipif(not _LIBRARIES, reason="needs libfaketime (Debian: apt-get install faketime)")
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("of_gateway", "of_worker"), [(1, -1), (-1, 1)])
def test_an_hour_ahead_and_an_hour_behind(tmp_path: Path, valkey_url: str, of_gateway: int, of_worker: int) -> None:
    store_url = (tmp_path / "images").as_uri()
    with (
        gateway(tmp_path, valkey_url, store_url, **off_by(of_gateway)) as client,
        worker(tmp_path, valkey_url, store_url, **off_by(of_worker)) as drawing,
    ):
        before_s = time.time()
        jobs = [client.submit(seed=seed) for seed in range(3)]
        for job_id in jobs:
            view = client.wait(job_id, "completed")
            names = ("created_at", "started_at", "completed_at")
            times_s = [datetime.fromisoformat(view[name]).timestamp() for name in names]
            assert times_s == sorted(times_s)
            assert before_s - 2 <= times_s[0] <= times_s[-1] <= time.time() + 2
            assert client.content(job_id).content.startswith(b"\x89PNG")
        assert {job["id"] for job in client.list()} >= set(jobs)
        log = drawing.said()
    assert _is_off(log, of_worker), "its own clock was not off"
    assert '"level": "error"' not in log


def _is_off(log: str, hours: int) -> bool:
    stamp = log.rpartition('"timestamp": "')[2][:19]
    said_s = time.mktime(time.strptime(stamp, "%Y-%m-%dT%H:%M:%S")) - time.timezone
    return abs(said_s - time.time() - hours * _HOUR_S) < 120
