"""Where the gateway listens."""

import errno
import ipaddress
import socket
from dataclasses import dataclass
from typing import Self

from app.cli.errors import AddressError


@dataclass(frozen=True, slots=True)
class Address:
    """A host and port of this machine."""

    host: str
    port: int

    @classmethod
    def free(cls, host: str, port: int) -> Self:
        """Make sure that a server could listen there; port 0 becomes a free one. Raises AddressError."""
        try:
            resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except (socket.gaierror, UnicodeError) as error:
            raise AddressError(f"{host!r} is no address of this machine; try --host 127.0.0.1.") from error
        for family, kind, protocol, _, address in resolved:
            with socket.socket(family, kind, protocol) as probe:
                # As servers do: connections of an earlier one that still linger are no obstacle.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((address[0], port, *address[2:]))
                except OSError as error:
                    raise AddressError(_trouble(host, port, error)) from error
                port = probe.getsockname()[1]
        return cls(host, port)

    @property
    def url(self) -> str:
        """Where a client on this machine reaches it."""
        try:
            address = ipaddress.ip_address(self.host)
        except ValueError:
            return f"http://{self.host}:{self.port}"
        if address.is_unspecified:
            address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
        return f"http://{address}:{self.port}" if address.version == 4 else f"http://[{address}]:{self.port}"


def _trouble(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} on {host} is in use, perhaps by another Darkroom."
            " Choose another with --port, or let --port 0 find a free one."
        )
    if error.errno == errno.EACCES:
        return f"Port {port} needs privileges that this user does not have. Choose one from 1024 up with --port."
    return f"Cannot listen on {host} port {port}: {error.strerror}. Try --host 127.0.0.1."
