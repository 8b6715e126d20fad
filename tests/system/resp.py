"""Where a RESP element ends: as much of the protocol as whoever stands in the line needs.

Source: the protocol's specification, https://valkey.io/topics/protocol/ (versions 2 and 3).
"""

_LINES = b"+-:_#,("  # one line each
_BULKS = b"$!="  # a length, then as many bytes
_AGGREGATES = {b"*": 1, b"~": 1, b">": 1, b"%": 2}  # a number, then so many elements for each


def element_end(data: bytes | bytearray, start: int = 0) -> int | None:
    """Give where the element at `start` ends, or None when not all of it is here. Raises ValueError for no RESP."""
    newline = data.find(b"\r\n", start)
    if newline < 0:
        return None
    kind, after = bytes(data[start : start + 1]), newline + 2
    if kind in _LINES:
        return after
    number = int(data[start + 1 : newline])
    if kind in _BULKS:
        end = after if number < 0 else after + number + 2
        return end if end <= len(data) else None
    if kind not in _AGGREGATES:
        raise ValueError(f"{kind!r} begins no RESP element")
    for _ in range(number * _AGGREGATES[kind]):
        inner = element_end(data, after)
        if inner is None:
            return None
        after = inner
    return after


def command_name(command: bytes) -> str:
    """The first word of a command: *2 $4 PING ..."""
    return command.split(b"\r\n", 3)[2].decode().upper()


def is_message(element: bytes) -> bool:
    """Whether it is a published message, which answers no command."""
    return element[:1] in b">*" and b"\r\nmessage\r\n" in element[:24]
