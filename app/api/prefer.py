"""The Prefer header (RFC 7240): of all preferences, `wait` is understood.

What is not written by its grammar is ignored, as the RFC has it of what a server does not know.
"""

import re
from typing import Annotated

from fastapi import Depends, Header

MAX_WAIT_S = 60

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's word
_WORD = rf"(?:{_TOKEN}|\"(?:[^\"\\]|\\.)*\")"
_PARAMETER = rf"{_TOKEN}(?:[ \t]*=[ \t]*{_WORD})?"
_END = r"[ \t]*(?:,|\Z)[ \t,]*"
_PREFERENCE = re.compile(rf"({_TOKEN})(?:[ \t]*=[ \t]*({_WORD}))?(?:[ \t]*;(?:[ \t]*{_PARAMETER})?)*{_END}")


def wait_s(header: str) -> int | None:
    """Give the seconds that a Prefer header asks to wait for, at most 60; None where it does not ask.

    >>> wait_s("respond-async, wait=10"), wait_s('wait="10"'), wait_s("wait=3600"), wait_s("wait=soon")
    (10, 10, 60, None)
    """
    header = header.lstrip(" \t,")  # an empty element of a list is none
    at = 0
    found = None
    while at < len(header):
        match = _PREFERENCE.match(header, at)
        if match is None:
            return None
        # The first of a name counts.
        if found is None and match[1].lower() == "wait":
            found = (match[2] or "").strip('"')
        at = match.end()
    if found is None or not re.fullmatch(r"[0-9]+", found):
        return None
    # Twenty digits are over any limit, and int() refuses thousands of them.
    return min(int(found[:20]), MAX_WAIT_S)


async def _wait_s(
    prefer: Annotated[
        list[str] | None,
        Header(description="`wait=SECONDS`: answer later, but no later than that; at most 60."),
    ] = None,
) -> int | None:
    return wait_s(", ".join(prefer or []))


WaitDep = Annotated[int | None, Depends(_wait_s)]
APPLIED = {
    "Preference-Applied": {"description": "The seconds that were waited for at most.", "schema": {"type": "string"}}
}


def applied(wait_s: int | None) -> dict[str, str]:
    """What the answer says of the preference."""
    return {} if wait_s is None else {"Preference-Applied": f"wait={wait_s}"}
