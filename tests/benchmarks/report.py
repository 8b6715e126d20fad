"""How a benchmark's figures are kept: what ran, on what, and what came out."""

import json
import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("torch", "diffusers", "transformers", "numpy")


def write_json(name: str, figures: Mapping[str, object], *, libraries: tuple[str, ...] = LIBRARIES) -> Path:
    """Write `NAME.json` with the command, the machine and the versions of the libraries beside the figures."""
    module = Path(sys.argv[0]).stem if Path(sys.argv[0]).stem != "__main__" else Path(sys.argv[0]).parent.name
    report = {
        "command": " ".join([f"python -m tests.benchmarks.{module}", *sys.argv[1:]]),
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()},
        "versions": {library: version(library) for library in libraries},
        **figures,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    Console(stderr=True).print(f"written: {path}")
    return path
