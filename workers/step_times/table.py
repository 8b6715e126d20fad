"""Measured step times by a GPU's name: where the cost model starts, before it has seen a step of its own.

Each file is a list of {stage, model, height, width, rows, ms}: full-size models in bfloat16, run eagerly. All of them
are written by `python -m tests.benchmarks.gpu.seed_table`, from what `make bench-gpu` measured.
"""

import json
import re
from pathlib import Path

from workers.engine.cost import StepTable, step_table

FOLDER = Path(__file__).parent


def seed_table(device_name: str) -> StepTable | None:
    """Find the table of a GPU as torch names it; None for one that was never measured."""
    path = FOLDER / file_name(device_name)
    return step_table(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def file_name(device_name: str) -> str:
    """Where a GPU's table is kept.

    >>> file_name("NVIDIA H100 80GB HBM3")
    'nvidia-h100-80gb-hbm3.json'
    """
    return f"{slug(device_name)}.json"


def slug(device_name: str) -> str:
    """Lower case, everything but letters and digits a hyphen."""
    return re.sub(r"[^a-z0-9]+", "-", device_name.lower()).strip("-")
