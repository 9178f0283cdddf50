"""What several tests of the bus share."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.ports import free_neighbours

from allranks_bus.addresses import Address


def free_tcp_address() -> Address:
    """A loopback address whose port, and the next one, nobody else gets."""
    return Address("tcp", host="127.0.0.1", port=free_neighbours())


@pytest.fixture(params=["tcp", "ipc"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Address:
    """Where a collector may listen, on either transport."""
    if request.param == "tcp":
        return free_tcp_address()
    return Address("ipc", path=str(tmp_path / "data"))


@pytest.fixture
def tcp_address() -> Address:
    """Where a collector may listen."""
    return free_tcp_address()


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The collector runs on both."""
    backend: str = request.param
    return backend
