"""`python -m workers.weights`, which fetches what workers read later without a network."""

from pathlib import Path

import pytest

from workers import weights


def test_it_says_where_each_model_lies(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DARKROOM_MODELS", "tiny-sd3,tiny-flux-dev")
    assert weights.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [Path(line.split(": ")[1]).name for line in lines] == ["tiny-sd3", "tiny-flux-dev"]


def test_it_ends_with_an_error_where_files_are_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("DARKROOM_MODELS", f"tiny-sd3={tmp_path}")
    assert weights.main() == 1
    assert (
        capsys.readouterr().err == f"weights: tiny-sd3: {tmp_path} lacks model_index.json; is it in diffusers format?\n"
    )


@pytest.mark.parametrize("models", ["", "no-such-model"])
def test_it_refuses_what_it_does_not_know(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], models: str
) -> None:
    monkeypatch.setenv("DARKROOM_MODELS", models)
    assert weights.main() > 0
    assert "weights: " in capsys.readouterr().err
