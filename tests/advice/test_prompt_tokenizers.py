"""The gateway's counts against the tokenizers that the workers' text encoders use: transformers' own."""

import json
import shutil
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import CLIPTokenizer, T5Tokenizer

from app.advice.prompt_tokenizers import PromptTokenizers
from app.advice.tokens import TokenCount, clip_at_least, t5_at_least
from app.catalog.catalog import Catalog, ModelCard, Source
from workers.tiny.prompts import held_out_prompts

CATALOG = Catalog.load()
BUNDLED = ("tiny-flux-schnell", "tiny-flux-dev", "tiny-sd3")
BUNDLED_TOKENIZERS = PromptTokenizers({})
MODELS = Path(__file__).parents[2] / "workers" / "tiny" / "models"
# Where the two kinds of tokenizers lie in each family's folder.
CLIP = {"flux": ["tokenizer"], "sd3": ["tokenizer", "tokenizer_2"]}
T5 = {"flux": "tokenizer_2", "sd3": "tokenizer_3"}

# What Python's own tables know: letters that later versions of Unicode added are no letters to it.
KNOWN = st.characters(exclude_categories=["Cn", "Cs"])

ODD = (
    "",
    " \t\n",
    "a red ring " * 900,
    "x" * 10_000,
    "日本語のリング 日本語",
    "e\N{COMBINING ACUTE ACCENT}te\N{COMBINING ACUTE ACCENT} été ÉTÉ",
    "\N{RING BUOY}\N{ZERO WIDTH JOINER}\N{FAMILY} \N{REGIONAL INDICATOR SYMBOL LETTER D}",
    "½ ² Ⅻ ٣ x²y",
    "don't can't we're I'd we'll I'm 'sit",
    "a\xa0b\u2003c\u200bd\x1ce\x85f",
    "<|endoftext|> </s> <pad> <unk> <|startoftext|>a<|endoftext|>",
    "hello!!! !!! !",
    "snake_case __init__ a_b_",
    "\u202eright to left\u202c عربي עברית",
    "ﬁ ﷺ ① Ａ",
    "\x00",
)


@pytest.mark.parametrize("model", BUNDLED)
def test_counts_agree_with_what_the_worker_reads(model: str) -> None:
    card = CATALOG[model]
    clip = [CLIPTokenizer.from_pretrained(MODELS / model / folder) for folder in CLIP[card.family]]
    t5 = T5Tokenizer.from_pretrained(MODELS / model / T5[card.family])
    prompts = [prompt.text for figures in (1, 2) for prompt in held_out_prompts(300, figures=figures)]
    assert sum(len(clip[0](text).input_ids) > 77 for text in prompts) > 10, "some must be long"
    for text in [*prompts, *ODD]:
        count = BUNDLED_TOKENIZERS.count(card, text)
        assert count.clip == TokenCount(max(len(one(text).input_ids) for one in clip), exact=True), text[:80]
        assert count.t5 == TokenCount(len(t5(text).input_ids), exact=True), text[:80]


def test_clip_is_built_from_vocabulary_and_merges_where_there_is_no_more(tmp_path: Path) -> None:
    # Published Flux and SD3 models hold no tokenizer.json for CLIP.
    for folder in ("tokenizer", "tokenizer_2"):
        (tmp_path / folder).mkdir()
        for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
            shutil.copy(MODELS / "tiny-sd3" / folder / name, tmp_path / folder)
        # As in the published vocabulary, marks that follow each other are one token: but not for the second encoder
        # of SD3, which pads with "!".
        vocab = json.loads((tmp_path / folder / "vocab.json").read_text())
        (tmp_path / folder / "vocab.json").write_text(json.dumps(vocab | {"!!</w>": len(vocab)}))
        with (tmp_path / folder / "merges.txt").open("a") as merges:
            merges.write("! !</w>\n")
    counted = PromptTokenizers({"flux-dev": tmp_path, "sd3-medium": tmp_path})
    stock = [CLIPTokenizer.from_pretrained(tmp_path / folder) for folder in ("tokenizer", "tokenizer_2")]
    differ = 0
    for text in [*(prompt.text for prompt in held_out_prompts(200, figures=2)), *ODD]:
        first, second = (len(one(text).input_ids) for one in stock)
        differ += first != second
        count = counted.count(CATALOG["flux-dev"], text)
        assert count.clip == TokenCount(first, exact=True), text[:80]
        assert counted.count(CATALOG["sd3-medium"], text).clip.tokens == max(first, second), text[:80]
        assert count.t5 == t5_at_least(text), "tokenizer_2 has no tokenizer.json, as T5's would"
    assert differ


@settings(deadline=None, max_examples=300)
@given(st.one_of(st.text(), st.text(alphabet="ab1_'!² \t\né日½"), st.sampled_from(ODD)))
def test_without_a_tokenizer_texts_are_counted_from_below(text: str) -> None:
    for model in ("tiny-flux-dev", "tiny-sd3"):
        exact = BUNDLED_TOKENIZERS.count(CATALOG[model], text)
        assert clip_at_least(text).tokens <= exact.clip.tokens
        assert t5_at_least(text).tokens <= exact.t5.tokens
    assert not clip_at_least(text).exact
    assert not t5_at_least(text).exact


@cache
def stock_tokenizers() -> tuple[Tokenizer, Tokenizer]:
    clip = CLIPTokenizer.from_pretrained(MODELS / "tiny-sd3" / "tokenizer")
    t5 = T5Tokenizer.from_pretrained(MODELS / "tiny-sd3" / "tokenizer_3")
    return clip.backend_tokenizer, t5.backend_tokenizer


@settings(deadline=None, max_examples=500)
@given(st.one_of(st.text(KNOWN), st.text(alphabet="abst1_'!² \t\né日½"), st.sampled_from(ODD)))
def test_no_vocabulary_makes_fewer_tokens_than_it_has_pieces(text: str) -> None:
    # The bundled vocabularies are so small that most words are several tokens; in large ones most are one.
    clip, t5 = stock_tokenizers()
    for word in ("<|startoftext|>", "<|endoftext|>"):
        text = text.replace(word, " ")
    pieces = clip.pre_tokenizer.pre_tokenize_str(clip.normalizer.normalize_str(text))
    assert clip_at_least(text).tokens <= len(pieces) + 2
    assert t5_at_least(text).tokens <= len(t5.pre_tokenizer.pre_tokenize_str(text)) + 1


def test_plain_english_is_counted_from_below_but_not_far_off() -> None:
    for prompt in held_out_prompts(100, figures=2):
        exact = BUNDLED_TOKENIZERS.count(CATALOG["tiny-sd3"], prompt.text)
        assert clip_at_least(prompt.text).tokens >= 0.9 * exact.clip.tokens
        assert t5_at_least(prompt.text).tokens >= 0.6 * exact.t5.tokens


@pytest.fixture
def elsewhere() -> ModelCard:
    card = CATALOG["tiny-sd3"]
    return card.model_copy(update={"source": Source(package="workers_left_out", folder="models", revision="1")})


def test_a_gateway_without_the_workers_packages_counts_from_below(elsewhere: ModelCard) -> None:
    assert PromptTokenizers({}).count(elsewhere, "a red ring").clip == TokenCount(5, exact=False)


def test_what_a_worker_downloads_later_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tokenizers = PromptTokenizers({})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    card, text = CATALOG["flux-schnell"], "a small red ring"
    assert not tokenizers.count(card, text).clip.exact
    repo = tmp_path / f"models--{str(card.source.repo).replace('/', '--')}"
    snapshot = repo / "snapshots" / card.source.revision
    shutil.copytree(MODELS / "tiny-flux-schnell" / "tokenizer", snapshot / "tokenizer")
    shutil.copytree(MODELS / "tiny-flux-schnell" / "tokenizer_2", snapshot / "tokenizer_2")
    found = tokenizers.count(card, text)
    assert found.clip.exact
    assert found.t5.exact


def test_a_damaged_file_is_no_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{}")
    card = CATALOG["flux-dev"]
    assert not PromptTokenizers({card.name: tmp_path}).count(card, "a ring").clip.exact
