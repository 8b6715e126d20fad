"""`darkroom demo`, the first thing that anybody runs."""

import io
import re
import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]


def read_png(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=["PNG"])


def test_the_demo_draws_fourteen_pictures_and_says_how_long_they_took(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app.cli.main", "demo", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    pictures = sorted((tmp_path / "out").glob("[0-9]*.png"))
    sizes = {read_png(path.read_bytes()).size for path in pictures}
    assert len(pictures) == 14
    assert sizes == {(128, 128), (192, 128)}
    assert pictures[0].name == "01-tiny-flux-schnell-1.png"
    assert read_png((tmp_path / "out" / "contact-sheet.png").read_bytes()).width > 5 * 192
    assert "First picture" in done.stdout
    assert done.stdout.count("completed") == 14
    right = re.search(r"(\d+) of 14 pictures show all that their prompts state", done.stdout)
    # Of what the models draw, one in ten misses something, and one step of schnell is rough.
    assert right is not None, done.stdout
    assert int(right[1]) >= 11, done.stdout
