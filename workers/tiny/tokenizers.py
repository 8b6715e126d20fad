"""Small real tokenizers for CLIP and T5, made from the captions of the tiny world.

Ids are laid out as in the published models. CLIP: bytes, bytes that end a word, merges, <|startoftext|>,
<|endoftext|>. T5: <pad> 0, </s> 1, <unk> 2, then pieces by falling score.
"""

import json
import math
import re
import string
from collections import Counter
from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizer, T5Tokenizer

CLIP_LENGTH = 77
T5_LENGTH = 256
WORD_START = "\u2581"
WORD = re.compile(rf"{WORD_START}?[^\W_]+")
# Frequent English letter groups, so that words outside the world cost T5 fewer tokens than they have letters.
FRAGMENTS = (
    "th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as ou io le ve co me de hi "
    "ri ro ic ne ea ra ce li ch ll be ma si om ur ca el ta la ns di fo ho pe ec pr no ct us ac ot il tr ly nc "
    "et ut ss so ing ion ent ter and the ers ate all est ight ound tion ment able ness"
)


def clip_tokenizer(captions: Sequence[str], pad_token: str = "<|endoftext|>") -> CLIPTokenizer:  # noqa: S107
    """Train a byte-level BPE; every string encodes, since all 256 bytes are in its vocabulary."""
    stock = CLIPTokenizer()
    trained = Tokenizer(BPE(end_of_word_suffix="</w>"))
    trained.normalizer = stock.backend_tokenizer.normalizer
    trained.pre_tokenizer = stock.backend_tokenizer.pre_tokenizer
    letters = sorted(ByteLevel.alphabet())  # the published order: "!" is 0
    # More than the corpus has to merge: every word of the world ends up as one token.
    trainer = BpeTrainer(vocab_size=2000, show_progress=False, initial_alphabet=letters, end_of_word_suffix="</w>")
    trained.train_from_iterator(captions, trainer)
    # The trainer orders the alphabet differently in every process, the merges not: keep only these.
    merges = [(left, right) for left, right in json.loads(trained.to_str())["model"]["merges"]]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *(left + right for left, right in merges)]
    vocab = {token: i for i, token in enumerate(dict.fromkeys([*tokens, "<|startoftext|>", "<|endoftext|>"]))}
    return CLIPTokenizer(
        vocab=vocab,
        merges=merges,  # type: ignore[arg-type]  # annotated as strings, but `BPE` takes only pairs
        pad_token=pad_token,
        model_max_length=CLIP_LENGTH,
    )


def t5_tokenizer(captions: Sequence[str]) -> T5Tokenizer:
    """Make a Unigram of whole words, English fragments and single characters; others than ASCII become <unk>.

    Scored by counting: `UnigramTrainer` orders its pieces differently in every process, and the world is small
    enough for each of its words to be a token.
    """
    words = Counter(
        word for caption in captions for word in WORD.findall(WORD_START + caption.replace(" ", WORD_START))
    )
    total = words.total()
    scores = dict.fromkeys(string.ascii_letters + string.digits + string.punctuation, -14.0)
    scores |= dict.fromkeys(FRAGMENTS.split(), -12.0)
    # Rounded, so that no platform's logarithm shows in the file.
    scores |= {word: round(math.log(count / total), 3) for word, count in words.items()}
    scores[WORD_START] = -4.0
    ranked = sorted(scores.items(), key=lambda piece: (-piece[1], piece[0]))
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *ranked]
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=T5_LENGTH)
