"""Darkroom as it may be one version on: a copy of this one, with a new field in every message, each of them in use."""

import shutil
from pathlib import Path

from tests.system.processes import ROOT

_HERE = Path(ROOT)

VERSION = "999.0.0"
NEW_WORD = "sepia"
"""The next version's gateway uses the job's new field for a prompt with this word."""

# File, words that it has once or in each of their places, what the next version adds after them.
_ADDED = (
    ("app/jobs/schema.py", "    metadata: dict[str, str]\n", "    toning: str | None = None\n"),
    ("app/jobs/schema.py", "    total_steps: int\n", '    zone: str = "near"\n'),
    ("app/jobs/schema.py", "    worker_version: str\n", "    toned: str | None = None\n"),
    ("app/jobs/schema.py", "    step_times: tuple[StepTime, ...] = ()\n", '    zone: str = "near"\n'),
    (
        "app/api/resolve.py",
        "        metadata=request.metadata,\n",
        f'        toning="warm" if "{NEW_WORD}" in request.prompt else None,\n',
    ),
    ("workers/running_job.py", "return Progress(", 'zone="far", '),
    ("workers/running_job.py", "            redone_steps=self.redone_steps,\n", "            toned=self.job.toning,\n"),
    ("workers/worker.py", "            device=self._options.device,\n", '            zone="far",\n'),
)


def write_next_version(root: Path) -> None:
    """Make a folder to run the next version in."""
    for package in ("app", "workers"):
        shutil.copytree(_HERE / package, root / package, ignore=shutil.ignore_patterns("__pycache__", "models"))
    (root / "workers" / "tiny" / "models").symlink_to(_HERE / "workers" / "tiny" / "models")
    (root / "tests").symlink_to(_HERE / "tests")  # whose null worker is the same
    # Where Python looks for a version first.
    metadata = root / f"darkroom_server-{VERSION}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.4\nName: darkroom-server\nVersion: {VERSION}\n")
    for name, words, added in _ADDED:
        path = root / name
        text = path.read_text()
        assert words in text, f"{name} has changed: nothing to add {added!r} after"
        path.write_text(text.replace(words, words + added))
