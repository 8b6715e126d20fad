"""The models' own tokenizers, without torch, for as many models as their files are on this machine.

Nothing is downloaded. Looked at, in this order: the folder that was given for the model, the package that bundles it
(its data by name: none of its code is needed), and what a worker on this machine left in the Hugging Face cache. Where
there is nothing, texts are counted from below.
"""

import json
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path

import structlog
from huggingface_hub import try_to_load_from_cache
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from app.advice.tokens import PromptTokens, TokenCount, clip_at_least, t5_at_least
from app.catalog.catalog import Family, ModelCard

log = structlog.get_logger()

# Folders of a diffusers pipeline: those of CLIP, and T5's.
_CLIP_FOLDERS: Mapping[Family, tuple[str, ...]] = {
    Family.FLUX: ("tokenizer",),
    Family.SD3: ("tokenizer", "tokenizer_2"),
}
_T5_FOLDERS: Mapping[Family, str] = {Family.FLUX: "tokenizer_2", Family.SD3: "tokenizer_3"}

# As transformers' CLIPTokenizer builds it from the same two files.
_CLIP_SPLIT = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class PromptTokenizers:
    """Counts tokens as the worker's text encoders will. May be used from several threads.

    folders: a diffusers folder for each model that is not read from where its card says.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = folders
        self._loaded: dict[Path, Tokenizer | None] = {}
        self._found: dict[tuple[str, str], Tokenizer] = {}

    def are_loaded(self, card: ModelCard) -> bool:
        """Whether `count` has what it needs in memory."""
        return all(
            (card.name, folder) in self._found for folder in (*_CLIP_FOLDERS[card.family], _T5_FOLDERS[card.family])
        )

    def count(self, card: ModelCard, text: str) -> PromptTokens:
        """Blocks for as long as a file takes to load, the first time, and for up to some 10 ms with a long text."""
        clip = [self._tokenizer(card, folder, "tokenizer.json", "vocab.json") for folder in _CLIP_FOLDERS[card.family]]
        t5 = self._tokenizer(card, _T5_FOLDERS[card.family], "tokenizer.json")
        return PromptTokens(
            clip=max((_count(tokenizer, text, clip_at_least) for tokenizer in clip), key=lambda count: count.tokens),
            t5=_count(t5, text, t5_at_least),
        )

    def _tokenizer(self, card: ModelCard, folder: str, *names: str) -> Tokenizer | None:
        if (known := self._found.get((card.name, folder))) is not None:
            return known
        file = next(filter(None, (self._find(card, f"{folder}/{name}") for name in names)), None)
        if file is None:
            return None  # looked for again with the next text: a worker may have downloaded it by then
        if file not in self._loaded:
            self._loaded[file] = _load(file)
        if (tokenizer := self._loaded[file]) is not None:
            self._found[card.name, folder] = tokenizer
        return tokenizer

    def _find(self, card: ModelCard, name: str) -> Path | None:
        source = card.source
        if (folder := self._folders.get(card.name)) is not None:
            file = folder / name
        elif source.package is not None and source.folder is not None:
            try:
                file = Path(str(resources.files(source.package) / source.folder / name))
            except ModuleNotFoundError:  # a gateway's image may leave the workers' packages out
                return None
        else:
            cached = try_to_load_from_cache(str(source.repo), name, revision=source.revision)
            if not isinstance(cached, str):
                return None
            file = Path(cached)
        return file if file.is_file() else None


def _count(tokenizer: Tokenizer | None, text: str, at_least: Callable[[str], TokenCount]) -> TokenCount:
    if tokenizer is None:
        return at_least(text)
    # `encode` would hold the interpreter for as long as it takes; this lets other threads run meanwhile.
    [encoding] = tokenizer.encode_batch_fast([text])
    return TokenCount(len(encoding), exact=True)


def _load(file: Path) -> Tokenizer | None:
    try:
        tokenizer = Tokenizer.from_file(str(file)) if file.name == "tokenizer.json" else _clip_tokenizer(file.parent)
    except Exception as error:  # `tokenizers` raises no narrower one
        log.warning("tokenizer_unreadable", file=str(file), error=str(error))
        return None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _clip_tokenizer(folder: Path) -> Tokenizer:
    """Build it from vocab.json and merges.txt, which is all that published Flux and SD3 models hold of it."""
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    start, end, unknown, pad = (
        _content(config.get(name, default))
        for name, default in (
            ("bos_token", "<|startoftext|>"),
            ("eos_token", "<|endoftext|>"),
            ("unk_token", "<|endoftext|>"),
            ("pad_token", "<|endoftext|>"),
        )
    )
    bpe = models.BPE.from_file(
        str(folder / "vocab.json"), str(folder / "merges.txt"), unk_token=unknown, end_of_word_suffix="</w>"
    )
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_CLIP_SPLIT), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(word, normalized=False) for word in (start, end, unknown, pad)])
    ids = tokenizer.get_vocab()
    tokenizer.post_processor = processors.RobertaProcessing(
        (end, ids[end]), (start, ids[start]), trim_offsets=False, add_prefix_space=False
    )
    return tokenizer


def _content(token: str | dict[str, object]) -> str:
    return token if isinstance(token, str) else str(token["content"])
