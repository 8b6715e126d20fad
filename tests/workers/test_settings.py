"""What a worker's environment may not say, from the outside."""

import os
import subprocess
import sys


def test_wrong_settings_are_named_without_their_values() -> None:
    wrong = {"DARKROOM_REDIS_URL": "redis://:secret@host:port", "DARKROOM_MAX_ROWS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "workers"], env=os.environ | wrong, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "worker: DARKROOM_REDIS_URL: write it as redis://HOST:PORT/DB, rediss://HOST:PORT/DB or unix:///PATH",
        "worker: DARKROOM_MAX_ROWS: Input should be greater than or equal to 2",
    ]
