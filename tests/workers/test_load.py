"""Model folders that are not what they should be, each refused with a way out."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.catalog.catalog import Catalog, ModelCard
from workers.pipelines.load import (
    DownloadError,
    MissingFilesError,
    ModelLoadError,
    PickledWeightsError,
    find_folder,
    load_pipeline,
)


@pytest.fixture
def card() -> ModelCard:
    return Catalog.load()["tiny-sd3"]


@pytest.fixture
def folder(card: ModelCard, tmp_path: Path) -> Path:
    return Path(shutil.copytree(find_folder(card), tmp_path / "model"))


def load(card: ModelCard, folder: Path) -> None:
    load_pipeline(card, folder, torch.device("cpu"), torch.float32)


def test_a_copy_of_the_folder_loads(card: ModelCard, folder: Path) -> None:
    load(card, folder)


def test_no_folder(card: ModelCard, tmp_path: Path) -> None:
    with pytest.raises(MissingFilesError, match=r"there is no folder .*nowhere"):
        load(card, tmp_path / "nowhere")


@pytest.mark.parametrize(
    "lost",
    [
        "model_index.json",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
        "text_encoder_3/model.safetensors",
        "tokenizer_2/tokenizer_config.json",
        "scheduler/scheduler_config.json",
        "vae/config.json",
    ],
)
def test_a_missing_file_is_named(card: ModelCard, folder: Path, lost: str) -> None:
    (folder / lost).unlink()
    named = "vae|transformer|text_encoder_3|tokenizer_2|scheduler|model_index"
    with pytest.raises(MissingFilesError, match=rf"lacks .*({named})") as caught:
        load(card, folder)
    assert Path(lost).parts[0].removesuffix(".json") in str(caught.value)


def test_every_missing_file_is_named_at_once(card: ModelCard, folder: Path) -> None:
    shutil.rmtree(folder / "vae")
    shutil.rmtree(folder / "tokenizer")
    with pytest.raises(MissingFilesError, match=r"tokenizer/tokenizer_config\.json, vae/config\.json, vae/\*"):
        load(card, folder)


def test_a_missing_shard_is_named(card: ModelCard, folder: Path) -> None:
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    shard = weights.with_name("diffusion_pytorch_model-00001-of-00002.safetensors")
    weights.rename(shard)
    names = dict.fromkeys(load_file(shard), shard.name)
    names["last"] = "diffusion_pytorch_model-00002-of-00002.safetensors"
    index = weights.with_name("diffusion_pytorch_model.safetensors.index.json")
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    with pytest.raises(MissingFilesError, match="transformer/diffusion_pytorch_model-00002-of-00002"):
        load(card, folder)


def test_a_shard_index_that_is_not_one(card: ModelCard, folder: Path) -> None:
    (folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json").write_text("[]")
    with pytest.raises(ModelLoadError, match=r"cannot read .*index\.json"):
        load(card, folder)


def test_pickled_weights_are_refused_unread(card: ModelCard, folder: Path) -> None:
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    trap = folder / "sprung"
    # Unpickling this would make the file.
    weights.with_suffix(".bin").write_bytes(f"cos\nsystem\n(S'touch {trap}'\ntR.".encode())
    with pytest.raises(PickledWeightsError, match=r"diffusion_pytorch_model\.bin"):
        load(card, folder)
    assert not trap.exists()


def test_another_familys_folder(card: ModelCard) -> None:
    flux = find_folder(Catalog.load()["tiny-flux-dev"])
    with pytest.raises(ModelLoadError, match=r"'FluxPipeline'.*'StableDiffusion3Pipeline'"):
        load(card, flux)


def test_weights_cut_short(card: ModelCard, folder: Path) -> None:
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelLoadError, match="cannot load AutoencoderKL from"):
        load(card, folder)


@pytest.mark.parametrize("component", ["vae/diffusion_pytorch_model", "text_encoder/model"])
def test_a_missing_tensor_is_not_filled_with_noise(card: ModelCard, folder: Path, component: str) -> None:
    weights = folder / f"{component}.safetensors"
    tensors = load_file(weights)
    lost = sorted(tensors)[0]
    del tensors[lost]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match="1 tensors are missing"):
        load(card, folder)


def test_a_tensor_of_another_shape(card: ModelCard, folder: Path) -> None:
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["proj_out.bias"] = torch.zeros(3)
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ModelLoadError):
        load(card, folder)


def test_a_config_that_asks_for_another_class_gets_the_listed_one(card: ModelCard, folder: Path) -> None:
    """The classes are ours to choose: a folder cannot name code to run."""
    index = json.loads((folder / "model_index.json").read_text())
    index["vae"] = ["os", "system"]
    (folder / "model_index.json").write_text(json.dumps(index))
    load(card, folder)


def test_an_index_that_is_not_json(card: ModelCard, folder: Path) -> None:
    (folder / "model_index.json").write_text("{")
    with pytest.raises(ModelLoadError, match="cannot read"):
        load(card, folder)


def test_offline_it_says_what_it_looked_for_and_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    card = Catalog.load()["flux-schnell"]
    with pytest.raises(DownloadError) as caught:
        find_folder(card)
    message = str(caught.value)
    for part in ("model_index.json", "transformer/*", "--model flux-schnell=/path/to/folder", card.source.revision):
        assert part in message
