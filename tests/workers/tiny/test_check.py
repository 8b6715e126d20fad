"""`python -m workers.tiny.check`: a picture against a prompt, for people and for the demo."""

import io
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
    said = capsys.readouterr().out
    assert "seen:  small red ring, middle left; plain blue background" in said
    assert "asked: small red ring, middle left; plain blue background" in said
    assert main([str(ring), "a large red ring"]) == 1
    assert "size        not as asked" in capsys.readouterr().out


def test_a_prompt_without_shapes_is_told_apart(ring: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(ring), "a horse"]) == 2
    assert "nothing that can be checked" in capsys.readouterr().out


@pytest.mark.parametrize("prompt", ["two red rings", "no red ring", "a ring without a background", "red rings"])
def test_words_beyond_it_are_named(ring: Path, prompt: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(ring), prompt]) == 2
    assert "is beyond this check" in capsys.readouterr().out


def test_a_background_alone_can_be_checked(ring: Path) -> None:
    assert main([str(ring), "a blue background"]) == 0
    assert main([str(ring), "a red background"]) == 1


def test_more_figures_than_can_be_told_apart_are_not_there(ring: Path) -> None:
    assert main([str(ring), "a red ring, a blue star, a green circle, a white heart and a black cross"]) == 1


@pytest.mark.parametrize(("width", "height"), [(3, 40), (4000, 4000), (20000, 20000)])
def test_pictures_of_hopeless_sizes_are_refused(
    width: int, height: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.png"
    Image.new("1", (width, height)).save(path)
    with pytest.raises(SystemExit):
        main([str(path), "a red ring"])
    assert "cannot read" in capsys.readouterr().err


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
    pairs = [[str(ring), "a red ring"], [str(ring), "a blue star on the right"], [str(ring), "a horse"]]
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(pairs), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[], ["shape", "colour", "position"], None]


@pytest.mark.parametrize(
    "text", ["", "{", "null", "{}", '[["x"]]', '["ab"]', '[["x", 1]]', '[["nowhere.png", "a ring"]]']
)
def test_what_is_no_list_of_pictures_and_prompts_is_refused_in_a_line(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    with pytest.raises(SystemExit):
        main(["--json"])
    assert "error: " in capsys.readouterr().err
