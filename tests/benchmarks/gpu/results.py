"""What was measured, kept in one JSON file that is whole after every cell."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.gpu.cell import Cell

OUT_OF_MEMORY = "out of memory"
SECTIONS = ("grid", "stages", "offline")


class OtherMachineError(Exception):
    """The file holds another machine's figures."""


class Results:
    """`grid` is a table of {model, height, width, rows, mode, ms, ...}: what a step cost on this machine.

    Each row's `run` is the place in `runs` of the command that measured it.
    """

    def __init__(self, path: Path, machine: Mapping[str, Any], run: Mapping[str, Any], *, fresh: bool) -> None:
        """Go on with the file, or begin it anew. Raises OtherMachineError."""
        self.path = path
        self._data: dict[str, Any] = {"machine": dict(machine), "runs": [], "failures": []}
        self._data |= {section: [] for section in SECTIONS}
        if not fresh and path.is_file():
            data = json.loads(path.read_text(encoding="utf-8"))
            if data["machine"]["device"] != machine["device"]:
                raise OtherMachineError(
                    f"{path} holds figures of {data['machine']['device']}, and this is {machine['device']}:"
                    " give another --out, or --fresh to begin anew"
                )
            # A graphics card runs out of memory every time; whatever else failed is tried again.
            data["failures"] = [row for row in data["failures"] if row["error"] == OUT_OF_MEMORY]
            self._data = data
        self._run = {**run, "machine": dict(machine)}

    def __contains__(self, cell: Cell) -> bool:
        rows = [*self._data[cell.section], *self._data["failures"]]
        return any(all(row.get(name) == value for name, value in cell.identity.items()) for row in rows)

    def section(self, name: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self._data[name]
        return rows

    @property
    def machine(self) -> Mapping[str, Any]:
        machine: Mapping[str, Any] = self._data["machine"]
        return machine

    def add(self, cell: Cell, measured: Mapping[str, Any]) -> None:
        self._data[cell.section].append({**cell.identity, **_rounded(measured), "run": self._run_number()})
        self._write()

    def add_failure(self, cell: Cell, error: str) -> None:
        """Note why a cell has no figures."""
        self._data["failures"].append(
            {"section": cell.section, **cell.identity, "error": error, "run": self._run_number()}
        )
        self._write()

    def _run_number(self) -> int:
        if self._run not in self._data["runs"]:
            self._data["runs"].append(self._run)
        return len(self._data["runs"]) - 1

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        # One row a line: readable, and small differences between runs.
        parts = []
        for name, value in self._data.items():
            if isinstance(value, list) and value:
                lines = ",\n".join(f"  {json.dumps(row)}" for row in value)
                parts.append(f"{json.dumps(name)}: [\n{lines}\n ]")
            else:
                parts.append(f"{json.dumps(name)}: {json.dumps(value)}")
        partial.write_text("{\n " + ",\n ".join(parts) + "\n}\n", encoding="utf-8")
        os.replace(partial, self.path)


def _rounded(measured: Mapping[str, Any]) -> dict[str, Any]:
    return {name: float(f"{value:.5g}") if isinstance(value, float) else value for name, value in measured.items()}
