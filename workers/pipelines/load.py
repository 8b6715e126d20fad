"""A model card becomes a StepPipeline: find the folder, check it, load it component by component.

Only safetensors are read, only the classes listed here are built, and no code comes with a model.

    ModelLoadError
    ├── MissingFilesError      the folder lacks files; the message lists them
    ├── PickledWeightsError    weights are there, but pickled: unpickling runs whatever code the file holds
    └── DownloadError          the hub cannot be reached, or refuses; the message says how to provide the files
"""

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedModel,
    T5EncoderModel,
    T5Tokenizer,
)

from app.catalog.catalog import Family, ModelCard
from workers.engine.pipeline import StepPipeline
from workers.pipelines.flux import FluxStepPipeline
from workers.pipelines.latent_rgb import FILE_NAME, FLUX, SD3, LatentRGB, read_latent_rgb
from workers.pipelines.sd3 import SD3StepPipeline

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_TOKENIZERS = {CLIPTokenizer, T5Tokenizer}

# Component folder -> the one class that may be built from it, by family.
_COMPONENTS: Mapping[Family, Mapping[str, type[Any]]] = {
    Family.FLUX: {
        "scheduler": FlowMatchEulerDiscreteScheduler,
        "text_encoder": CLIPTextModel,
        "text_encoder_2": T5EncoderModel,
        "tokenizer": CLIPTokenizer,
        "tokenizer_2": T5Tokenizer,
        "transformer": FluxTransformer2DModel,
        "vae": AutoencoderKL,
    },
    Family.SD3: {
        "scheduler": FlowMatchEulerDiscreteScheduler,
        "text_encoder": CLIPTextModelWithProjection,
        "text_encoder_2": CLIPTextModelWithProjection,
        "text_encoder_3": T5EncoderModel,
        "tokenizer": CLIPTokenizer,
        "tokenizer_2": CLIPTokenizer,
        "tokenizer_3": T5Tokenizer,
        "transformer": SD3Transformer2DModel,
        "vae": AutoencoderKL,
    },
}
_LATENT_RGB = {Family.FLUX: FLUX, Family.SD3: SD3}
_PIPELINE_NAMES = {Family.FLUX: "FluxPipeline", Family.SD3: "StableDiffusion3Pipeline"}


class ModelLoadError(Exception):
    """A model that cannot be served, and what to do about it."""


class MissingFilesError(ModelLoadError):
    pass


class PickledWeightsError(ModelLoadError):
    pass


class DownloadError(ModelLoadError):
    pass


def load_pipeline(
    card: ModelCard, folder: Path | None, device: torch.device, dtype: torch.dtype, parked: bool = False
) -> StepPipeline:
    """Load a model from this folder, or from wherever its card says; a parked one waits in host memory.

    Raises ModelLoadError, and torch.OutOfMemoryError where the device has no room.
    """
    folder = folder or find_folder(card)
    check_folder(card, folder)
    parts = {name: _load_component(kind, folder / name, dtype) for name, kind in _COMPONENTS[card.family].items()}
    latent_rgb = _find_latent_rgb(card, folder, parts["vae"].config.latent_channels)
    pipeline: StepPipeline
    match card.family:
        case Family.FLUX:
            pipeline = FluxStepPipeline(FluxPipeline(**parts), device, latent_rgb)
        case Family.SD3:
            pipeline = SD3StepPipeline(StableDiffusion3Pipeline(**parts), device, latent_rgb)
    if parked:
        pipeline.to_host()
    else:
        pipeline.to_device()
    return pipeline


def find_folder(card: ModelCard) -> Path:
    """Find the card's diffusers folder: package data, or the hub's cache, filled if need be. Raises DownloadError."""
    source = card.source
    if source.package is not None and source.folder is not None:
        return Path(str(resources.files(source.package) / source.folder))
    if source.repo is None:
        raise DownloadError(f"{card.name} names no source")
    # A repository may also hold single-file checkpoints that double the download.
    patterns = ["model_index.json", *(f"{name}/*" for name in _COMPONENTS[card.family])]
    try:
        return Path(
            snapshot_download(
                source.repo,
                revision=source.revision,
                allow_patterns=patterns,
                ignore_patterns=["*.bin", "*.msgpack", "*.fp16*"],
            )
        )
    except GatedRepoError as error:
        raise DownloadError(
            f"{card.name}: accept the licence at https://huggingface.co/{source.repo} and set HF_TOKEN to a token of"
            " the account that accepted it"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise DownloadError(
            f"{card.name}: cannot download {source.repo} at {source.revision} ({_first_line(error)}). Looked in the"
            f" Hugging Face cache for: {', '.join(patterns)}. Either run `hf download {source.repo} --revision"
            f" {source.revision}` where there is a network and copy the cache here (HF_HOME), or start with `--model"
            f" {card.name}=/path/to/folder`, a folder in diffusers format with those entries."
        ) from error


def weights_revision(card: ModelCard, folder: Path | None) -> str:
    """Name the weights that are served: the card's revision, or what a folder given for it holds."""
    if folder is None:
        return card.source.revision
    files = sorted(path for path in folder.rglob("*.safetensors") if path.is_file())
    return f"{folder}: " + ", ".join(f"{file.name} {(s := file.stat()).st_size} {s.st_mtime_ns}" for file in files)


def check_folder(card: ModelCard, folder: Path) -> None:
    """See that the folder is the family's pipeline, whole, and free of pickles. Raises ModelLoadError."""
    if not folder.is_dir():
        raise MissingFilesError(f"{card.name}: there is no folder {folder}")
    _check_index(card, folder)
    missing: list[str] = []
    for name, kind in _COMPONENTS[card.family].items():
        if kind in _TOKENIZERS or kind is FlowMatchEulerDiscreteScheduler:
            wanted = "tokenizer_config.json" if kind in _TOKENIZERS else "scheduler_config.json"
            missing += [] if (folder / name / wanted).is_file() else [f"{name}/{wanted}"]
        else:
            missing += [f"{name}/{file}" for file in _missing_weights(folder / name)]
    if missing:
        raise MissingFilesError(f"{card.name}: {folder} lacks {', '.join(missing)}")


def _check_index(card: ModelCard, folder: Path) -> None:
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        found = index["_class_name"]
    except FileNotFoundError:
        raise MissingFilesError(f"{card.name}: {folder} lacks model_index.json; is it in diffusers format?") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelLoadError(f"{card.name}: cannot read {folder}/model_index.json: {error}") from error
    if found != _PIPELINE_NAMES[card.family]:
        raise ModelLoadError(
            f"{card.name}: {folder} holds a {found!r}, but a {card.family} model is a {_PIPELINE_NAMES[card.family]!r}"
        )


def _missing_weights(component: Path) -> Sequence[str]:
    names = {path.name for path in component.iterdir()} if component.is_dir() else set()
    missing = [] if "config.json" in names else ["config.json"]
    index = next((name for name in names if name.endswith(".safetensors.index.json")), None)
    if index is not None:
        try:
            shards = set(json.loads((component / index).read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelLoadError(f"cannot read {component / index}: {error}") from error
        missing += sorted(shards - names)
    elif not any(name.endswith(".safetensors") for name in names):
        pickles = sorted(name for name in names if name.endswith(_PICKLES))
        if pickles:
            raise PickledWeightsError(
                f"{component}: refusing pickled weights ({', '.join(pickles)}): loading them would run whatever code"
                " they hold. Convert them to safetensors, for example with diffusers' `save_pretrained`."
            )
        missing.append("*.safetensors")
    return missing


def _find_latent_rgb(card: ModelCard, folder: Path, channels: int) -> LatentRGB | None:
    file = folder / "vae" / FILE_NAME
    try:
        return read_latent_rgb(file, channels)
    except FileNotFoundError:
        # The published maps are of the published VAEs, and those have 16.
        return _LATENT_RGB[card.family] if channels == 16 else None
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{card.name}: {file} holds no map of latents to colours: {error}") from error


def _load_component(kind: type[Any], folder: Path, dtype: torch.dtype) -> Any:
    try:
        if kind in _TOKENIZERS or kind is FlowMatchEulerDiscreteScheduler:
            return kind.from_pretrained(folder, local_files_only=True)
        dtype_name = "dtype" if issubclass(kind, PreTrainedModel) else "torch_dtype"
        model, info = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **{dtype_name: dtype}
        )
    except Exception as error:  # every library underneath raises its own
        raise ModelLoadError(f"cannot load {kind.__name__} from {folder}: {_first_line(error)}") from error
    # A library fills gaps with random weights and a warning: the picture would be noise and nobody would know.
    wrong = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
    if wrong:
        raise ModelLoadError(
            f"{folder} does not hold the weights of its own config.json: {len(wrong)} tensors are missing or have"
            f" another shape, {wrong[0]} for one"
        )
    return model.eval().requires_grad_(False)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
