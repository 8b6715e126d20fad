"""How to run one of our own modules as a process, from wherever the `darkroom` command itself was imported."""

import os
import sys
from pathlib import Path

import app


def module_command(module: str) -> list[str]:
    """The command for `python -m module`; -P, because a folder named `app` where the user stands is not ours."""
    return [sys.executable, "-P", "-m", module]


def module_environment() -> dict[str, str]:
    """This process's environment, and in a source checkout, which need not be installed, the way to it."""
    environment = dict(os.environ)
    root = Path(app.__path__[0]).parent
    if (root / "pyproject.toml").is_file():
        given = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{root}{os.pathsep}{given}" if given else str(root)
    return environment
