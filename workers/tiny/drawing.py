"""Pictures by the engine, as the server draws them, without the server."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import CLIPTokenizer

from app.catalog.catalog import Catalog, ModelCard
from workers.engine.cost import CostModel
from workers.engine.engine import Engine
from workers.engine.report import Drawn
from workers.engine.request import DenoiseRequest, ImageSpec
from workers.engine.scheduler import Scheduler
from workers.pipelines.load import load_pipeline
from workers.running_job import default_spec
from workers.tiny.render import Picture

MAX_ROWS = 16  # of a batch


class DrawingError(Exception):
    """A picture that the engine could not finish."""


class Artist:
    """The tiny models of a folder, ready to draw."""

    def __init__(self, folder: Path, names: Sequence[str], device: torch.device) -> None:
        catalog = Catalog.load()
        self.cards: Mapping[str, ModelCard] = {name: catalog[name] for name in names}
        self._pipelines = {
            name: load_pipeline(card, folder / name, device, torch.float32) for name, card in self.cards.items()
        }
        self._tokenizers = {name: CLIPTokenizer.from_pretrained(folder / name / "tokenizer") for name in names}

    def spec(self, model: str, prompt: str, seed: int, **changes: object) -> ImageSpec:
        """A request at the model's defaults, but for these changes."""
        return replace(default_spec(self.cards[model]), prompt=prompt, seed=seed, **changes)  # type: ignore[arg-type]

    def clip_tokens(self, model: str, prompt: str) -> list[int]:
        """The prompt as CLIP's tokens, uncut."""
        ids: list[int] = self._tokenizers[model](prompt).input_ids
        return ids

    def draw(self, specs: Sequence[ImageSpec], title: str | None = None) -> list[Picture]:
        """Draw them all, in batches, with a progress bar if it has a title. Raises DrawingError."""
        engine = Engine(self._pipelines, Scheduler(CostModel(), max_rows=MAX_ROWS), time.monotonic)
        waiting = [DenoiseRequest(str(i), spec, i) for i, spec in enumerate(specs)]
        pictures: dict[str, Picture] = {}
        with tqdm(total=len(specs), desc=title, unit="picture", mininterval=5, disable=title is None) as bar:
            while waiting or len(engine):
                room = MAX_ROWS - len(engine)
                admission = engine.admit(waiting[:room])
                del waiting[:room]
                report = engine.step()
                for failed in [*admission.failed, *report.failed]:
                    raise DrawingError(f"{failed.request.spec}: {failed.reason}") from failed.cause
                for drawn in report.drawn:
                    pictures[drawn.request.id] = _picture(drawn)
                bar.update(len(report.drawn))
        return [pictures[str(i)] for i in range(len(specs))]


def _picture(drawn: Drawn) -> Picture:
    picture: Picture = drawn.pixels.numpy()
    return picture
