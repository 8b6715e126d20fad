"""The bundled tiny models: stock diffusers loads them, their tokenizers take anything, and every setting counts."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline, StableDiffusion3Pipeline
from transformers import CLIPTokenizer, T5Tokenizer

from workers.tiny.build import MODELS_DIR
from workers.tiny.captions import write_captions
from workers.tiny.pipelines import NAMES
from workers.tiny.training.recipe import CORPUS
from workers.tiny.training.text import Tokenizers

CLASSES = {
    "tiny-flux-schnell": FluxPipeline,
    "tiny-flux-dev": FluxPipeline,
    "tiny-sd3": StableDiffusion3Pipeline,
}
USUAL = {
    "tiny-flux-schnell": {"num_inference_steps": 4, "guidance_scale": 0.0},
    "tiny-flux-dev": {"num_inference_steps": 28, "guidance_scale": 3.5},
    "tiny-sd3": {"num_inference_steps": 28, "guidance_scale": 7.0},
}
ANY_MODEL_HEEDS = [
    {"prompt": "a blue square"},
    {"prompt": "a red ring"},
    {"prompt": "東京の夜"},
    {"seed": 1},
    {"num_inference_steps": 7},
]
CLIP_FOLDERS = [
    *((name, "tokenizer") for name in NAMES),
    ("tiny-sd3", "tokenizer_2"),
]
T5_FOLDERS = [
    ("tiny-flux-schnell", "tokenizer_2"),
    ("tiny-flux-dev", "tokenizer_2"),
    ("tiny-sd3", "tokenizer_3"),
]
ODD_TEXTS = [
    "",
    " \n\t",
    "東京の夜",
    "🦊👩🏽\u200d🚀",
    "\u0000\u200b\ufffd\U0010ffff",
    "naïve café",
    "</s> <pad> <unk>",
    "!" * 500,
]


@pytest.fixture(scope="module")
def pipelines() -> dict[str, Any]:
    return {name: cls.from_pretrained(MODELS_DIR / name) for name, cls in CLASSES.items()}


def draw(pipeline: Any, name: str, **changes: Any) -> torch.Tensor:
    """Latents of the usual request, with changes."""
    settings = {"prompt": "a red circle", "seed": 0, "height": 128, "width": 128, **USUAL[name], **changes}
    seed = settings.pop("seed")
    pipeline.set_progress_bar_config(disable=True)
    latents: torch.Tensor = pipeline(
        **{"max_sequence_length": 128, "output_type": "latent", **settings},
        generator=torch.Generator("cpu").manual_seed(seed),
    ).images
    return latents


def test_three_models_fit_in_25_megabytes() -> None:
    """What they share is there once: the others have links to it."""
    assert sum(path.lstat().st_size for path in MODELS_DIR.rglob("*") if path.is_file()) < 25e6
    for path in MODELS_DIR.rglob("*"):
        assert path.resolve().is_relative_to(MODELS_DIR.resolve())


@pytest.mark.parametrize("name", NAMES)
def test_diffusers_loads_them_as_float32(pipelines: dict[str, Any], name: str) -> None:
    for key, component in pipelines[name].components.items():
        if isinstance(component, torch.nn.Module):
            assert {parameter.dtype for parameter in component.parameters()} == {torch.float32}, key


def test_the_models_share_one_vae_and_one_t5() -> None:
    vaes = {(MODELS_DIR / name / "vae" / "diffusion_pytorch_model.safetensors").read_bytes() for name in NAMES}
    t5s = {
        (MODELS_DIR / name / key.replace("tokenizer", "text_encoder") / "model.safetensors").read_bytes()
        for name, key in T5_FOLDERS
    }
    assert (len(vaes), len(t5s)) == (1, 1)


def test_tokenizers_are_learnt_from_the_captions() -> None:
    """Whoever changes a caption's words must retrain the models."""
    learnt = Tokenizers.learn(list(write_captions(seed=0, count=CORPUS)))
    clip = json.loads((MODELS_DIR / "tiny-sd3" / "tokenizer" / "vocab.json").read_text(encoding="utf-8"))
    assert clip == learnt.clip.get_vocab()
    t5 = T5Tokenizer.from_pretrained(MODELS_DIR / "tiny-sd3" / "tokenizer_3")
    assert t5.get_vocab() == learnt.t5.get_vocab()


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        *itertools.product(NAMES, ANY_MODEL_HEEDS),
        ("tiny-flux-dev", {"guidance_scale": 4.0}),
        ("tiny-sd3", {"guidance_scale": 7.5}),
        ("tiny-sd3", {"negative_prompt": "blue"}),
    ],
    ids=str,
)
def test_each_setting_changes_the_latents(pipelines: dict[str, Any], name: str, changes: dict[str, Any]) -> None:
    usual, changed = draw(pipelines[name], name), draw(pipelines[name], name, **changes)
    assert (changed - usual).abs().max() > 1e-2
    # Not one odd token: the whole picture shifts.
    assert (changed - usual).pow(2).mean().sqrt() > 2e-2


def test_schnell_ignores_guidance(pipelines: dict[str, Any]) -> None:
    usual = draw(pipelines["tiny-flux-schnell"], "tiny-flux-schnell")
    guided = draw(pipelines["tiny-flux-schnell"], "tiny-flux-schnell", guidance_scale=5.0)
    assert torch.equal(usual, guided)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prompt", ["a", "a red circle", "A large teal star above a tiny pink ring.", "東京"])
def test_latents_stay_well_scaled(pipelines: dict[str, Any], name: str, prompt: str) -> None:
    latents = draw(pipelines[name], name, prompt=prompt, num_inference_steps=28)
    assert torch.isfinite(latents).all()
    assert 0.3 < latents.std() < 5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("height", "width"), [(64, 64), (512, 512), (80, 496)])
def test_smallest_and_largest_sizes_work(pipelines: dict[str, Any], name: str, height: int, width: int) -> None:
    latents = draw(pipelines[name], name, height=height, width=width, num_inference_steps=1, max_sequence_length=256)
    channels = pipelines[name].vae.config.latent_channels
    assert latents.numel() == channels * (height // 8) * (width // 8)
    assert 0.3 < latents.std() < 5


@pytest.mark.parametrize(("name", "key"), CLIP_FOLDERS)
def test_clip_tokenizer_takes_any_text(name: str, key: str) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(MODELS_DIR / name / key)
    for text in ODD_TEXTS:
        ids = tokenizer(text, padding="max_length", truncation=True).input_ids
        assert len(ids) == tokenizer.model_max_length == 77
        assert ids[0] == tokenizer.bos_token_id
        end = ids.index(tokenizer.eos_token_id)
        assert set(ids[end + 1 :]) <= {tokenizer.pad_token_id, tokenizer.eos_token_id}
    # A text that loses nothing to case or spacing comes back as it was.
    for text in ["a red circle above a blue square", "naïve café", "東京の夜", "🦊"]:
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


@pytest.mark.parametrize(("name", "key"), CLIP_FOLDERS)
def test_clip_tokenizer_truncates_and_keeps_the_end(name: str, key: str) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(MODELS_DIR / name / key)
    ids = tokenizer("red circle " * 60, padding="max_length", truncation=True).input_ids
    assert len(ids) == 77
    assert ids.index(tokenizer.eos_token_id) == 76


@pytest.mark.parametrize(("name", "key"), CLIP_FOLDERS)
def test_clip_vocabulary_files_alone_load(tmp_path: Path, name: str, key: str) -> None:
    for file in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (tmp_path / file).write_bytes((MODELS_DIR / name / key / file).read_bytes())
    whole, parts = CLIPTokenizer.from_pretrained(MODELS_DIR / name / key), CLIPTokenizer.from_pretrained(tmp_path)
    for text in [*ODD_TEXTS, "An image of a Medium-sized circle!"]:
        assert parts(text).input_ids == whole(text).input_ids


@pytest.mark.parametrize(("name", "key"), CLIP_FOLDERS)
def test_clip_pools_at_the_first_end_token(pipelines: dict[str, Any], name: str, key: str) -> None:
    tokenizer = pipelines[name].components[key]
    encoder = pipelines[name].components[key.replace("tokenizer", "text_encoder")]
    text = getattr(encoder, "text_model", encoder)
    ids = tokenizer(["a red circle", "a"], padding="max_length", return_tensors="pt").input_ids
    assert encoder.config.eos_token_id == tokenizer.eos_token_id == len(tokenizer) - 1
    assert encoder.config.bos_token_id == tokenizer.bos_token_id
    assert encoder.config.pad_token_id == tokenizer.pad_token_id
    with torch.no_grad():
        output = text(ids)
    ends = [row.tolist().index(tokenizer.eos_token_id) for row in ids]
    assert ends == [4, 2]
    assert torch.equal(output.pooler_output, output.last_hidden_state[[0, 1], ends])


def test_clip_pools_where_a_prompt_spells_the_end_token(pipelines: dict[str, Any]) -> None:
    """As with the published tokenizers: what follows the spelled-out token does not reach the pooled output."""
    pipeline = pipelines["tiny-flux-schnell"]
    prompts = ["a red circle<|endoftext|> one", "a red circle<|endoftext|> two"]
    ids = pipeline.tokenizer(prompts, padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        first, second = pipeline.text_encoder(ids).pooler_output
    assert torch.equal(first, second)


@pytest.mark.parametrize(("name", "key"), T5_FOLDERS)
def test_t5_tokenizer_takes_any_text(name: str, key: str) -> None:
    tokenizer = T5Tokenizer.from_pretrained(MODELS_DIR / name / key)
    assert [tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id] == [0, 1, 2]
    for text in ODD_TEXTS:
        ids = tokenizer(text, padding="max_length", max_length=128, truncation=True).input_ids
        assert len(ids) == 128
        assert max(ids) < len(tokenizer)
        assert tokenizer.eos_token_id in ids
    assert tokenizer("").input_ids == [1]
    text = "A zebra (9 years old) rides a bike, fast!"
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text
    ids = tokenizer("red circle " * 200, max_length=128, truncation=True).input_ids
    assert (len(ids), ids[-1]) == (128, tokenizer.eos_token_id)


@pytest.mark.parametrize("name", NAMES)
def test_world_words_are_single_tokens(pipelines: dict[str, Any], name: str) -> None:
    tokenizers = [part for key, part in pipelines[name].components.items() if key.startswith("tokenizer")]
    for tokenizer in tokenizers:
        specials = len(tokenizer("").input_ids)
        assert len(tokenizer("a huge cross on a striped purple background").input_ids) == 8 + specials
        assert len(tokenizer) < 1000
