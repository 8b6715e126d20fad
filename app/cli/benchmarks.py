"""The benchmarks of a source checkout, by name."""

from pathlib import Path

import app
from app.cli.errors import UsageError


def benchmark_module(name: str) -> str:
    """Find the module of a benchmark, `step-overhead` or `step_overhead`. Raises UsageError."""
    folder = Path(app.__path__[0]).parent / "tests" / "benchmarks"
    known = benchmarks(folder)
    if not known:
        raise UsageError(
            f"the benchmarks are not installed with the package: run this from a source checkout (looked in {folder})"
        )
    module = name.replace("-", "_")
    if module not in known:
        raise UsageError(f"unknown benchmark {name!r}; there are: {', '.join(known)}")
    return f"tests.benchmarks.{module}"


def benchmarks(folder: Path) -> list[str]:
    """List what can be run: modules that do something when run, and packages with a `__main__`."""
    modules = [path.stem for path in folder.glob("[!_]*.py") if '__name__ == "__main__"' in path.read_text("utf-8")]
    return sorted([*modules, *(path.parent.name for path in folder.glob("*/__main__.py"))])
