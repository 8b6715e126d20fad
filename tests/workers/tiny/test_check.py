"""`python -m workers.tiny.check`: a picture against a prompt, for people and for the demo."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from workers.tiny.check import main
from workers.tiny.render import render
from workers.tiny.scenes import Background, Figure, Scene

SCENE = Scene(Background("plain", "blue", None), (Figure("ring", "red", "small", 1, 0),))


@pytest.fixture
def ring(tmp_path: Path) -> Path:
    path = tmp_path / "ring.png"
    Image.fromarray(render(SCENE, 128, 128)).save(path)
    return path


def test_it_says_what_it_sees_and_what_was_asked(ring: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(ring), "a small red ring on the left on a blue background"]) == 0
    assert "seen: small red ring, middle left; plain blue background" in capsys.readouterr().out
    assert main([str(ring), "a large red ring"]) == 1
    assert "size        not as asked" in capsys.readouterr().out


def test_a_prompt_without_shapes_is_told_apart(ring: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(ring), "a horse"]) == 2
    assert "nothing that can be checked" in capsys.readouterr().out


def test_what_is_no_picture_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"no picture")
    with pytest.raises(SystemExit):
        main([str(path), "a red ring"])
    assert "cannot read" in capsys.readouterr().err


def test_many_at_once_without_torch(ring: Path) -> None:
    code = (
        "import sys; from workers.tiny.check import main; main(['--json']);"
        " sys.exit(any(name in sys.modules for name in ('torch', 'diffusers', 'transformers')))"
    )
    pairs = [[str(ring), "a red ring"], [str(ring), "a blue star on the right"]]
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(pairs), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[], ["shape", "colour", "position"]]
