"""Addresses: where a collector listens, and where its control socket is next to it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Literal

from allranks_bus.errors import AddressError

DEFAULT_HTTP_PORT = 5570
DEFAULT_DATA_PORT = 5571

# sun_path of sockaddr_un holds 108 bytes with its final NUL; the control socket's suffix must fit too.
_MAX_IPC_PATH_BYTES = 107 - len(".control")

# ZeroMQ takes no other characters in a host, and would tell only when it connects.
_TCP = re.compile(
    r"(?P<host>\[(?P<ipv6>[0-9A-Fa-f:.]+)(?:%[\w.-]+)?\]|[A-Za-z0-9][\w.-]*):(?P<port>[0-9]+)/?", re.ASCII
)


@dataclass(frozen=True)
class Address:
    """A collector's data address; `control` follows from it, so that one setting names both."""

    scheme: Literal["tcp", "ipc"]
    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def data(self) -> str:
        """The endpoint for PUSH (writer) and PULL (collector)."""
        return f"ipc://{self.path}" if self.scheme == "ipc" else f"tcp://{self.host}:{self.port}"

    @property
    def control(self) -> str:
        """The endpoint for SUB (writer) and PUB (collector)."""
        return f"ipc://{self.path}.control" if self.scheme == "ipc" else f"tcp://{self.host}:{self.port + 1}"

    @property
    def is_loopback(self) -> bool:
        """True where only this machine can reach it."""
        return (
            self.scheme == "ipc"
            or self.host in ("localhost", "[::1]", "::1")
            or re.fullmatch(r"127\.\d+\.\d+\.\d+", self.host) is not None
        )

    def __str__(self) -> str:
        return self.data


def parse_address(text: str) -> Address:
    """The `Address` that `text` names.

    Args:
        text: `tcp://HOST:PORT`, where HOST is a name, an IPv4 address or an IPv6 address in brackets; or
            `ipc://PATH` with an absolute path.

    Raises:
        AddressError: it is anything else; the message says what is wrong with it.
    """
    scheme, separator, rest = text.strip().partition("://")
    if not separator:
        raise AddressError(text, "it has no scheme")
    if scheme == "ipc":
        if not rest.startswith("/"):
            raise AddressError(text, "an ipc path must be absolute")
        if rest.endswith("/") or not rest.isprintable():
            raise AddressError(text, "an ipc path must name a file")
        if len(os.fsencode(rest)) > _MAX_IPC_PATH_BYTES:
            raise AddressError(text, f"an ipc path has at most {_MAX_IPC_PATH_BYTES} bytes")
        return Address("ipc", path=rest)
    if scheme != "tcp":
        raise AddressError(text, f"{scheme!r} is no transport that allranks uses")
    match = _TCP.fullmatch(rest)
    if match is None or not _is_ipv6_or_name(match["ipv6"]):
        raise AddressError(text, "it must have a host and a port number")
    port = int(match["port"][:7])
    # The control socket is on the next port, so the last one cannot be a data port.
    if not 1 <= port <= 65534:
        raise AddressError(text, "the port must be 1 to 65534")
    return Address("tcp", host=match["host"], port=port)


def _is_ipv6_or_name(ipv6: str | None) -> bool:
    if ipv6 is None:
        return True
    import socket  # rarely needed, and slow to import

    try:
        socket.inet_pton(socket.AF_INET6, ipv6)
    except OSError:
        return False
    return True
