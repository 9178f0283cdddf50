"""Listening: the ports that were asked for, or, for an embedded collector, some that are free.

Everybody finds an embedded collector by its home, so where the usual ports are taken others will do; one that was
killed takes its last ones again, for the pages that are open on them. Any other collector is found by its port.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from allranks_bus.addresses import Address, parse_address
from allranks_bus.errors import AddressError, AllranksError
from allranks_bus.home import Endpoint
from allranks_bus.sockets import CollectorSockets
from allranks_collector.settings import Settings

_PORT_TRIES = 200
_LAST_DATA_PORT = 65_534  # control is on the next


class PortInUse(AllranksError):
    """A port that was asked for is taken."""

    def __init__(self, what: str, address: str, reason: str) -> None:
        super().__init__(
            f"cannot listen on {address} for {what}: {reason}; choose another port (allranks doctor shows who has it)"
        )


def open_sockets(settings: Settings, *, may_move: bool, last: Endpoint | None) -> CollectorSockets:
    """The sockets for data and control.

    Args:
        may_move: free ports will do where the usual ones are taken.
        last: where a collector of this home, which is no more, has listened.

    Raises:
        PortInUse: nobody can listen there.
    """
    if settings.ipc is not None:
        Path(settings.ipc).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        wanted = Address("ipc", path=str(settings.ipc))
        return CollectorSockets(wanted.data, wanted.control)
    host = bracketed(settings.host)
    moves = may_move and _is_default(settings, "data_port")
    ports = _data_ports(settings, last) if moves else iter((settings.data_port,))
    problem = ""
    for port in ports:
        address = Address("tcp", host=host, port=port)
        try:
            return CollectorSockets(address.data, address.control)
        except OSError as error:
            problem = problem or f"{error.strerror or error}"
    wanted = Address("tcp", host=host, port=settings.data_port)
    raise PortInUse("data and control", f"{wanted.data} and {wanted.control}", problem)


def open_http(settings: Settings, *, may_move: bool, last: Endpoint | None) -> socket.socket:
    """The listening socket for HTTP; arguments and errors as of `open_sockets`."""
    ports = [settings.http_port]
    if may_move and _is_default(settings, "http_port"):
        told = urlsplit(last.http).port if last else None
        ports = [*([told] if told else []), settings.http_port, 0]
    problem = ""
    for port in ports:
        try:
            return _listen(settings.host, port)
        except OSError as error:
            problem = problem or error.strerror or str(error)
    raise PortInUse("HTTP", f"{settings.host}:{settings.http_port}", problem)


def address_of(sockets: CollectorSockets) -> Address:
    """The address at which the sockets listen."""
    return parse_address(sockets.data_endpoint)


def bracketed(host: str) -> str:
    """`host` as it stands in a URL."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _is_default(settings: Settings, name: str) -> bool:
    return settings.sources.get(name, "default") == "default"


def _data_ports(settings: Settings, last: Endpoint | None) -> Iterator[int]:
    if last is not None:
        with contextlib.suppress(AddressError):
            port = parse_address(last.url).port
            if port:
                yield port
    yield settings.data_port
    # The control socket is always on the next port, so two neighbours must be free: tried until they are.
    for _ in range(_PORT_TRIES):
        with contextlib.closing(_listen(settings.host, 0)) as listener:
            free: int = listener.getsockname()[1]
        yield min(free, _LAST_DATA_PORT)


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(512)
    except BaseException:
        listener.close()
        raise
    return listener
