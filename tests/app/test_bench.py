"""`darkroom bench NAME`."""

import shutil
import subprocess
import sys
from pathlib import Path

import app

ROOT = Path(app.__path__[0]).parent


def darkroom(*arguments: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.cli.main", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=100, check=False)


def test_a_benchmark_gets_its_own_options() -> None:
    done = darkroom("bench", "step-overhead", "--help")
    assert done.returncode == 0, done.stderr
    assert "--repeats" in done.stdout


def test_an_unknown_name_is_answered_with_those_that_are_there() -> None:
    done = darkroom("bench", "speed")
    assert done.returncode == 2
    assert done.stderr.startswith(
        "darkroom: unknown benchmark 'speed'; there are: gpu, image_encode, parity, poll_latency, queue, "
    )


def test_an_installed_package_has_none_and_says_where_they_are(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "app", tmp_path / "app")
    done = darkroom("bench", "gpu", root=tmp_path)
    assert done.returncode == 2
    assert "not installed with the package: run this from a source checkout" in done.stderr
    assert "Traceback" not in done.stderr
