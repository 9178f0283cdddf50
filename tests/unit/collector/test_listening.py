"""Ports: the usual ones, free ones where these are taken, the last ones after a crash; and clear errors."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
from collections.abc import Generator
from pathlib import Path

import pytest

from allranks_bus.home import Endpoint
from allranks_collector.listening import PortInUse, address_of, open_http, open_sockets
from allranks_collector.settings import Settings, load_settings


@contextlib.contextmanager
def taken(port: int = 0) -> Generator[int]:
    """A port on loopback that somebody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        yield listener.getsockname()[1]


def settings_with(tmp_path: Path, **flags: object) -> Settings:
    return load_settings({"home": str(tmp_path), **flags}, {}, embedded=True)


def endpoint_at(data: int, http: int) -> Endpoint:
    return Endpoint(f"tcp://127.0.0.1:{data}", f"http://127.0.0.1:{http}", 1, 1, "00" * 16, "0", 0.0)


def default_ports(tmp_path: Path, data: int, http: int) -> Settings:
    """Settings whose defaults are these ports, as if nobody had chosen any."""
    return dataclasses.replace(settings_with(tmp_path), data_port=data, http_port=http)


def test_an_embedded_collector_moves_where_the_usual_ports_are_taken(tmp_path: Path) -> None:
    with taken() as data, taken() as http:
        settings = default_ports(tmp_path, data, http)
        with (
            contextlib.closing(open_sockets(settings, may_move=True, last=None)) as sockets,
            contextlib.closing(open_http(settings, may_move=True, last=None)) as listener,
        ):
            assert address_of(sockets).port not in (data, 0)
            assert listener.getsockname()[1] not in (http, 0)


def test_a_control_port_that_is_taken_moves_both(tmp_path: Path) -> None:
    with taken() as control:
        settings = default_ports(tmp_path, control - 1, 0)
        with contextlib.closing(open_sockets(settings, may_move=True, last=None)) as sockets:
            assert address_of(sockets).port != control - 1


def test_a_collector_that_was_killed_takes_its_last_ports_again(tmp_path: Path) -> None:
    settings = settings_with(tmp_path)
    with contextlib.closing(open_sockets(default_ports(tmp_path, 1, 1), may_move=True, last=None)) as free:
        data = address_of(free).port
    with taken() as http:
        pass
    last = endpoint_at(data, http)
    with (
        contextlib.closing(open_sockets(settings, may_move=True, last=last)) as sockets,
        contextlib.closing(open_http(settings, may_move=True, last=last)) as listener,
    ):
        assert address_of(sockets).port == data
        assert listener.getsockname()[1] == http


@pytest.mark.parametrize("may_move", [True, False])
def test_a_port_that_somebody_chose_is_a_clear_error_when_it_is_taken(tmp_path: Path, may_move: bool) -> None:
    with taken() as port:
        settings = settings_with(tmp_path, data_port=port)
        with pytest.raises(PortInUse, match=f"cannot listen on tcp://127.0.0.1:{port} .* in use .*; choose another"):
            open_sockets(settings, may_move=may_move, last=None)
        settings = settings_with(tmp_path, http_port=port)
        with pytest.raises(PortInUse, match=f"127.0.0.1:{port} for HTTP: Address already in use"):
            open_http(settings, may_move=may_move, last=None)


def test_an_ipc_path_gets_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "run" / "data.sock"
    with contextlib.closing(
        open_sockets(settings_with(tmp_path, ipc=str(path)), may_move=False, last=None)
    ) as sockets:
        assert address_of(sockets).path == str(path)
        assert path.exists()
