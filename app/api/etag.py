"""Entity tags (RFC 9110, 8.8.3 and 13.1.2): whether a client has already what it asks for."""

import hashlib
import re

from app.api.views import ImageJobView

_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def is_known(tag: str, if_none_match: str) -> bool:
    """Whether the header names this tag. As the RFC has it, weak and strong ones of the same text are the same here.

    >>> is_known('"a"', 'W/"b", W/"a"'), is_known('W/"a"', "*"), is_known('"a"', '"ab"')
    (True, True, False)
    """
    opaque = tag.removeprefix("W/")
    return if_none_match.strip() == "*" or opaque in _TAG.findall(if_none_match)


def tag_of(view: ImageJobView) -> str:
    """A weak tag: estimates aside, which change with every look, the same tag is the same job in the same state."""
    estimates = {"queue": {"eta_seconds"}, "progress": {"eta_seconds"}}
    text = view.model_dump_json(exclude=estimates)
    return f'W/"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'
