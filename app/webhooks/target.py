"""Where a webhook may go: the one place that decides it.

A URL is written in the plainest way or not taken, so that no two parsers read different hosts in it. Its name is looked
up once per attempt, every address that it has must be a public one, and the connection goes to exactly that address:
a name that points elsewhere a moment later changes nothing.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

MAX_URL_CHARS = 2_048
# RFC 1035, section 2.3.4, as it is written in text: without the first length and the root.
_MAX_HOST_CHARS = 253
_MAX_LABEL_CHARS = 63

_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[!-~]*)?"
)
_NUMERIC_END = re.compile(r"(?:^|\.)(?:[0-9]+|0[xX][0-9A-Fa-f]*)$")
_PORTS = {"https": 443, "http": 80}
# All that is routed on the internet. ipaddress also counts the old site-local addresses as global.
_IPV6_UNICAST = ipaddress.IPv6Network("2000::/3")
# What carries an IPv4 address inside, which the next router may take out: 6to4 and Teredo.
_CARRIERS = (ipaddress.IPv6Network("2002::/16"), ipaddress.IPv6Network("2001::/32"))

Resolve = Callable[[str, int], Awaitable[list[str]]]


class TargetError(Exception):
    """No webhook goes there. The message is for its author, and says nothing of what is to be found there."""


@dataclass(frozen=True, slots=True)
class Target:
    """A webhook's URL, taken apart. path: with its query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The Host header."""
        return self.host if self.port == _PORTS[self.scheme] else f"{self.host}:{self.port}"


def parse_target(url: str, *, allow_private: bool) -> Target:
    """Read a URL. Raises TargetError. allow_private: http and addresses of closed networks too."""
    match = _URL.fullmatch(url)
    if len(url) > MAX_URL_CHARS or match is None or "#" in url or "\\" in url:
        raise TargetError("write it as https://HOST/PATH, in ASCII, without a user, a fragment or a backslash")
    scheme, host = match["scheme"], match["host"].lower()
    if scheme != "https" and not allow_private:
        raise TargetError("webhooks go to https:// only")
    port = int(match["port"] or _PORTS[scheme])
    if not 1 <= port <= 65_535:
        raise TargetError(f"{port} is not a port")
    literal = _literal(host)
    if literal is not None and not allow_private and not is_public(literal):
        raise TargetError("the address is not a public one")
    if literal is None and (host.startswith("[") or _NUMERIC_END.search(host) or ".." in host):
        raise TargetError("the host is neither a name nor an address as it is usually written")
    if literal is None and (len(host) > _MAX_HOST_CHARS or max(map(len, host.split("."))) > _MAX_LABEL_CHARS):
        raise TargetError("the host, or a part of it between dots, is longer than a name can be")
    return Target(scheme, host, port, match["path"] or "/")


async def pinned_address(target: Target, resolve: Resolve, *, allow_private: bool) -> str:
    """Look the host up, once, and give the address to connect to. Raises TargetError or OSError."""
    literal = _literal(target.host)
    found = [str(literal)] if literal is not None else await resolve(target.host, target.port)
    if not found:
        raise TargetError("the host has no address")
    # One bad address among good ones is enough: it is no accident.
    if not allow_private and not all(is_public(ipaddress.ip_address(address)) for address in found):
        raise TargetError("the host has an address that is not a public one")
    return found[0]


async def resolve_by_system(host: str, port: int) -> list[str]:
    """Ask the system's resolver. Raises TargetError or OSError."""
    loop = asyncio.get_running_loop()
    try:
        entries = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # Python's own reading of the name, before anybody is asked
        raise TargetError("the host is not a name that can be looked up") from error
    return [str(entry[4][0]) for entry in entries]


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether everybody on the internet means the same machine by it, and none of ours."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address not in _IPV6_UNICAST or any(address in carrier for carrier in _CARRIERS):
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
