"""`python -m tests.benchmarks.gpu.seed_table`: the measured figures become what workers on that GPU start from.

Reads tests/benchmarks/results/gpu-DEVICE.json, writes workers/step_times/DEVICE.json. What was not measured is left
out: the cost model borrows it from the nearest shape.
"""

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from app.catalog.catalog import Catalog, Family
from tests.benchmarks.gpu.architectures import CLIP_LENGTH
from tests.benchmarks.gpu.cell import EAGER
from workers.engine.cost import TEXT_ENCODE_SIZE, Stage
from workers.step_times.table import FOLDER, file_name

RESULTS = Path(__file__).parents[1] / "results"

Row = dict[str, Any]

# What a family runs for one prompt beside T5. All pad to CLIP_LENGTH tokens.
_CLIPS: Mapping[Family, tuple[str, ...]] = {Family.FLUX: ("clip-l",), Family.SD3: ("clip-l", "clip-g")}


def seed_rows(results: Mapping[str, Any]) -> list[Row]:
    """Make {stage, model, height, width, rows, ms} of the results of `make bench-gpu`."""
    grid = [row for row in results["grid"] if row["mode"] == EAGER]
    catalog = Catalog.load()
    rows: list[Row] = []
    for name in dict.fromkeys(row["model"] for row in grid):
        card = catalog[name]
        rows += (_row(Stage.DENOISE, name, row) for row in grid if row["model"] == name)
        # Both families decode by the same network, and the engine's decode ends with pixels on the host.
        rows += (_row(Stage.VAE_DECODE, name, row) for row in results["stages"] if row["stage"] == "vae-decode-to-host")
        rows += _text_encode(name, card.family, card.defaults.max_sequence_length, results["stages"])
    return rows


def to_json(rows: Iterable[Row]) -> str:
    """One row a line."""
    return "[\n" + ",\n".join(f"  {json.dumps(row)}" for row in rows) + "\n]\n"


def _row(stage: Stage, model: str, measured: Mapping[str, Any]) -> Row:
    shape = {name: measured[name] for name in ("height", "width", "rows")}
    return {"stage": stage.value, "model": model, **shape, "ms": measured["ms"]}


def _text_encode(model: str, family: Family, t5_length: int, stages: Iterable[Mapping[str, Any]]) -> list[Row]:
    """One prompt through every encoder of the family, T5 at the model's default length; none if one is missing."""
    encoded_ms = {(row["component"], row["length"]): row["ms"] for row in stages if row["stage"] == "text-encode"}
    wanted = [("t5-xxl", t5_length), *((clip, CLIP_LENGTH) for clip in _CLIPS[family])]
    if not all(encoder in encoded_ms for encoder in wanted):
        return []
    height, width = TEXT_ENCODE_SIZE
    ms = round(sum(encoded_ms[encoder] for encoder in wanted), 3)
    return [_row(Stage.TEXT_ENCODE, model, {"height": height, "width": width, "rows": 1, "ms": ms})]


def main() -> None:
    parser = argparse.ArgumentParser(prog="seed_table", description=__doc__)
    parser.add_argument("results", type=Path, nargs="*", help="default: all of a GPU that are committed")
    for path in parser.parse_args().results or sorted(RESULTS.glob("gpu-*.json")):
        results = json.loads(path.read_text(encoding="utf-8"))
        rows = seed_rows(results)
        out = FOLDER / file_name(results["machine"]["device"])
        out.write_text(to_json(rows), encoding="utf-8")
        print(f"{out}: {len(rows)} rows")


if __name__ == "__main__":
    main()
