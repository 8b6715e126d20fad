"""How long a text is for the two kinds of text encoders, and what can be said of that without their vocabularies."""

import re
import unicodedata
from dataclasses import dataclass

CLIP_TOKENS = 77  # what CLIP's text encoders read, their start and end marks included

# CLIP splits a text like this before anything else, and each piece becomes one token or more (openai/CLIP,
# clip/simple_tokenizer.py). Python's `re` has no \p{L}: where its classes differ, these pieces are fewer.
_CLIP_PIECE = re.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|'(?:s|t|re|ve|m|ll|d)|[^\W\d_]+|\d|(?:[^\w\s]|[_\x1c-\x1f])+"
)
_T5_SPACE = re.compile(r"[ \t\n\v\f\r]+")  # as far as everybody's idea of a space goes


@dataclass(frozen=True, slots=True)
class TokenCount:
    """Tokens of a text, the encoder's marks included. Not exact: at least so many."""

    tokens: int
    exact: bool

    def __str__(self) -> str:
        return str(self.tokens) if self.exact else f"at least {self.tokens}"

    def beyond(self, limit: int) -> str:
        """Say how many are beyond the limit; only for a count that is above it."""
        return str(TokenCount(self.tokens - limit, self.exact))


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """One text's tokens: the most that a CLIP encoder of the model makes of it, and T5's."""

    clip: TokenCount
    t5: TokenCount


def clip_at_least(text: str) -> TokenCount:
    """Bound CLIP's tokens from below: a word, a digit or a run of punctuation is one token or more."""
    return TokenCount(len(_CLIP_PIECE.findall(unicodedata.normalize("NFC", text).lower())) + 2, exact=False)


def t5_at_least(text: str) -> TokenCount:
    """Bound T5's tokens from below: what stands between spaces is one token or more."""
    return TokenCount(sum(bool(word.strip()) for word in _T5_SPACE.split(text)) + 1, exact=False)
