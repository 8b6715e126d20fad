"""The catalog: what each model is, what it accepts, and what suits it.

A `ModelCard` is checked once, when `models.toml` is read; a request is checked against it once, in the gateway.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

BUILTIN_MODELS = Path(__file__).with_name("models.toml")


class CatalogError(Exception):
    """A models file that cannot be read, or a model name that is not in it."""


class UnknownModelError(CatalogError):
    """A model name that the catalog does not have.

    >>> str(UnknownModelError("flux-dv", ["flux-dev"]))
    "unknown model 'flux-dv'; known models: flux-dev"
    """

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"unknown model {name!r}; known models: {', '.join(known)}")
        self.name = name
        self.known = tuple(known)


class Family(StrEnum):
    FLUX = "flux"
    SD3 = "sd3"


class Guidance(StrEnum):
    """What `guidance_scale` does in a model.

    cfg: classifier-free guidance, two forwards a step when it is above 1. embedded: an input of the transformer.
    none: the model was distilled without it and ignores it.
    """

    CFG = "cfg"
    EMBEDDED = "embedded"
    NONE = "none"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Range(_Frozen):
    """A closed interval."""

    min: float
    max: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self

    def __contains__(self, value: float) -> bool:
        return self.min <= value <= self.max


class Source(_Frozen):
    """Where the weights are: a diffusers folder inside a Python package, or a hub repository at a pinned commit."""

    package: str | None = None
    folder: str | None = None
    repo: str | None = None
    revision: str = Field(description="Commit of the hub repository, or the package data's own version.")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.repo is None) == (self.package is None) or (self.package is None) != (self.folder is None):
            raise ValueError("a source names either `repo`, or `package` and `folder`")
        return self


class Limits(_Frozen):
    """Bounds that a request may not cross; sizes in pixels."""

    size_multiple: int = Field(gt=0, description="Width and height are multiples of this.")
    min_side: int
    max_side: int
    max_pixels: int
    num_inference_steps: Range
    guidance_scale: Range
    max_sequence_length: int = Field(description="T5 tokens.")


class Defaults(_Frozen):
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    max_sequence_length: int


class Recommended(_Frozen):
    """Where the model's authors show it at its best."""

    num_inference_steps: Range
    guidance_scale: Range
    pixels: Range


class ModelCard(_Frozen):
    """One model: its family, its weights, and the requests that suit it."""

    name: str
    family: Family
    description: str
    license: str
    source: Source
    guidance: Guidance
    limits: Limits
    defaults: Defaults
    recommended: Recommended

    @model_validator(mode="after")
    def _defaults_are_allowed(self) -> Self:
        d, limits = self.defaults, self.limits
        problems = [
            *self.size_problems(d.width, d.height),
            *([] if d.num_inference_steps in limits.num_inference_steps else ["default num_inference_steps"]),
            *([] if d.guidance_scale in limits.guidance_scale else ["default guidance_scale"]),
            *([] if d.max_sequence_length <= limits.max_sequence_length else ["default max_sequence_length"]),
        ]
        if problems:
            raise ValueError(f"outside its own limits: {'; '.join(problems)}")
        return self

    def rows(self, guidance_scale: float, true_cfg_scale: float) -> int:
        """Rows of a forward for one image: 2 where the model runs with and without the prompt."""
        return 2 if true_cfg_scale > 1 or (self.guidance is Guidance.CFG and guidance_scale > 1) else 1

    def size_problems(self, width: int, height: int) -> list[str]:
        """Say what is wrong with a size, with a size that would do; empty when it is fine."""
        limits = self.limits
        problems = []
        for side, value in (("width", width), ("height", height)):
            if not limits.min_side <= value <= limits.max_side:
                problems.append(f"{side} {value} is outside {limits.min_side} to {limits.max_side} pixels")
            elif value % limits.size_multiple:
                below = value - value % limits.size_multiple
                nearest = [v for v in (below, below + limits.size_multiple) if limits.min_side <= v <= limits.max_side]
                problems.append(
                    f"{side} {value} is not a multiple of {limits.size_multiple}; try {' or '.join(map(str, nearest))}"
                )
        if not problems and width * height > limits.max_pixels:
            problems.append(f"{width}x{height} is {width * height} pixels; the limit is {limits.max_pixels}")
        return problems


class Catalog(Mapping[str, ModelCard]):
    """Model cards by name, in the order of the file."""

    def __init__(self, cards: Sequence[ModelCard]) -> None:
        self._cards = {card.name: card for card in cards}

    @classmethod
    def load(cls, path: Path = BUILTIN_MODELS) -> Self:
        """Read a models file.

        Raises CatalogError when it is missing, is not TOML, is empty, or holds a card that contradicts itself.
        """
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CatalogError(f"cannot read the models file {path}: {error}") from error
        if not tables:
            raise CatalogError(f"the models file {path} has no models")
        return cls([_card(path, name, table) for name, table in tables.items()])

    def __getitem__(self, name: str) -> ModelCard:
        try:
            return self._cards[name]
        except KeyError:
            raise UnknownModelError(name, list(self._cards)) from None

    def __contains__(self, name: object) -> bool:
        return name in self._cards

    def __iter__(self) -> Iterator[str]:
        return iter(self._cards)

    def __len__(self) -> int:
        return len(self._cards)

    def only(self, names: Sequence[str]) -> Self:
        """Keep these models, in this order. Raises UnknownModelError."""
        return type(self)([self[name] for name in names])


def _card(path: Path, name: str, table: object) -> ModelCard:
    try:
        return ModelCard.model_validate({**table, "name": name} if isinstance(table, dict) else table)
    except ValidationError as error:
        problems = "; ".join(map(_in_words, error.errors(include_url=False)))
        raise CatalogError(f"model {name!r} in {path}: {problems}") from error


def _in_words(problem: ErrorDetails) -> str:
    message = problem["msg"].removeprefix("Value error, ")
    return ": ".join(filter(None, (".".join(map(str, problem["loc"])), message)))
