"""Do pictures show their prompts? Asked of the tiny world's evaluator, a process of its own as the worker is."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from app.cli.errors import DemoError
from app.cli.python_module import module_command, module_environment

_WITHIN_S = 60.0


def find_missing(pictures: Sequence[tuple[Path, str]]) -> list[list[str] | None]:
    """Name for each (file, prompt) the attributes that the picture fails to show; None where the prompt states none.

    Raises DemoError.
    """
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
        said = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
        why = (said.strip() or "no reason was given").splitlines()[-1]
        raise DemoError(f"The pictures could not be compared with their prompts: {why}") from error
    missing: list[list[str] | None] = json.loads(done.stdout)
    return missing
