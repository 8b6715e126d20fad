"""The README's table of warnings is the code's."""

from pathlib import Path

from app.advice.catalogue import catalogue
from app.advice.code import Code

README = Path(__file__).parents[2] / "README.md"


def test_the_readme_has_every_warning() -> None:
    assert f"\n\n{catalogue()}\n\n" in README.read_text(encoding="utf-8")


def test_the_table_names_each_code_once() -> None:
    assert [catalogue().count(f"| `{code}` |") for code in Code] == [1] * len(Code)
