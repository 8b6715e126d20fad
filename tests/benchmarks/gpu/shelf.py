"""Random-weight components on one device, built when first asked for and freed when another model needs the memory."""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, StableDiffusion3Pipeline
from transformers import CLIPTokenizer, T5Tokenizer

import workers.tiny
from tests.benchmarks.gpu.architectures import Architectures, Component, Family, Model
from workers.engine.pipeline import StepPipeline
from workers.pipelines.flux import FluxStepPipeline
from workers.pipelines.sd3 import SD3StepPipeline

_WEIGHT_STD = 0.02
_TOKENIZERS = Path(workers.tiny.__path__[0]) / "models"


class Shelf:
    """Components by name. `build_s` holds how long each took to make."""

    def __init__(self, architectures: Architectures, device: torch.device, dtype: torch.dtype) -> None:
        self.architectures = architectures
        self.device = device
        self.dtype = dtype
        self.build_s: dict[str, float] = {}
        self._built: dict[str, Any] = {}
        self._compiled: set[str] = set()

    def missing(self, names: set[str]) -> set[str]:
        return names - self._built.keys()

    def component(self, name: str) -> Any:
        """Have this component, and on the device no other."""
        self._keep({name})
        return self._built[name]

    def step_pipeline(self, model: Model, *, compiled: bool) -> StepPipeline:
        """Our own pipeline with the transformer alone: it can draw noise and denoise."""
        return wrap(model, self.stock(model, compiled=compiled, whole=False), self.device)

    def stock(self, model: Model, *, compiled: bool, whole: bool) -> Any:
        """diffusers' own pipeline: whole, or with the transformer alone."""
        wanted = dict(model.components) if whole else {"transformer": model.transformer}
        self._keep(set(wanted.values()))
        self._set_compiled(model.transformer, compiled)
        parts = dict.fromkeys(model.components) | {part: self._built[name] for part, name in wanted.items()}
        return assemble(model, parts, whole=whole)

    def _keep(self, names: set[str]) -> None:
        for name in self._built.keys() - names:
            del self._built[name]
            self._compiled.discard(name)
        if self.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
        for name in sorted(names - self._built.keys()):
            started_s = time.perf_counter()
            self._built[name] = build(self.architectures.components[name], self.device, self.dtype)
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            self.build_s[name] = time.perf_counter() - started_s

    def _set_compiled(self, name: str, compiled: bool) -> None:
        if compiled == (name in self._compiled):
            return
        transformer = self._built[name]
        if compiled:
            _compile_blocks(transformer, self.device)
            self._compiled.add(name)
        else:
            for block in _blocks(transformer):
                block._compiled_call_impl = None
            self._compiled.remove(name)


def build(component: Component, device: torch.device, dtype: torch.dtype) -> Any:
    """Make the network on the device itself, its matrices normal with a deviation small enough never to overflow.

    On the meta device it has shapes and no values.
    """
    with torch.device(device), _default_dtype(dtype):
        if component.config_class is None:
            network = component.kind(**component.config)
        else:
            network = component.kind(component.config_class(**component.config))
    network = network.to(device=device, dtype=dtype).eval().requires_grad_(False)
    if device.type != "meta":
        for parameter in network.parameters():
            if parameter.ndim > 1:  # norms stay ones, biases near zero
                parameter.normal_(0.0, _WEIGHT_STD)
    return network


def assemble(model: Model, parts: dict[str, Any], *, whole: bool) -> Any:
    """Make the stock pipeline of these parts; a whole one gets the bundled tokenizers, whose ids all vocabularies have.

    Every prompt is padded to the model's length, so that what its tokens are changes no cost.
    """
    parts = parts | {"scheduler": FlowMatchEulerDiscreteScheduler(**model.noise_scheduler)}
    if model.family is Family.FLUX:
        stock_class: Any = FluxPipeline
        folder = _TOKENIZERS / "tiny-flux-dev"
        tokenizers: dict[str, Any] = {"tokenizer": CLIPTokenizer, "tokenizer_2": T5Tokenizer}
    else:
        stock_class = StableDiffusion3Pipeline
        folder = _TOKENIZERS / "tiny-sd3"
        tokenizers = {"tokenizer": CLIPTokenizer, "tokenizer_2": CLIPTokenizer, "tokenizer_3": T5Tokenizer}
    for name, kind in tokenizers.items():
        parts[name] = kind.from_pretrained(folder / name, local_files_only=True) if whole else None
    pipeline = stock_class(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def wrap(model: Model, stock: Any, device: torch.device) -> StepPipeline:
    kind = FluxStepPipeline if model.family is Family.FLUX else SD3StepPipeline
    return kind(stock, device, latent_rgb=None)


def _blocks(transformer: Any) -> list[Any]:
    return [*transformer.transformer_blocks, *getattr(transformer, "single_transformer_blocks", [])]


def _compile_blocks(transformer: Any, device: torch.device) -> None:
    # Blocks of one class share their code, so one compilation a shape does for all of them. Static shapes: what is
    # measured is the code made for the cell. Without a GPU only the tracing is worth running.
    torch._dynamo.config.recompile_limit = 64
    backend = "inductor" if device.type == "cuda" else "eager"
    for block in _blocks(transformer):
        block.compile(fullgraph=True, dynamic=False, backend=backend)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
