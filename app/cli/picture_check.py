"""Do pictures show their prompts? Asked of the tiny world's evaluator, a process of its own as the worker is."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from app.cli.errors import DemoError
from app.cli.python_module import module_command, module_environment

_WITHIN_S = 60.0


def find_missing(pictures: Sequence[tuple[Path, str]]) -> list[list[str]]:
    """Name for each (file, prompt) the attributes that the picture fails to show. Raises DemoError."""
    try:
        done = subprocess.run(
            [*module_command("workers.tiny.check"), "--json"],
            input=json.dumps([(str(path), prompt) for path, prompt in pictures]),
            env=module_environment(),
            capture_output=True,
            text=True,
            timeout=_WITHIN_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        words = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise DemoError(f"The pictures could not be compared with their prompts: {words[-1]}") from error
    missing: list[list[str]] = json.loads(done.stdout)
    return missing
