"""Ports for those who must know theirs before they listen: nobody else gets them meanwhile, or between two lives.

A port that was bound for a look and let go again may be the next one that the kernel gives to anybody who connects
anywhere; to one who tries to connect to that very port, even, who then speaks with himself and keeps it. So these are
of the range that the kernel never gives out by itself, and of a block that is this process's alone for as long as it
lives: tests run side by side.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

_FIRST, _BLOCK, _LEAST = 10_000, 200, 50


class _Block:
    """Ports of this process; a forked child has a block of its own."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._lock = socket.socket(socket.AF_UNIX)
        self._first = self._claimed()
        self._next = 0

    def neighbours(self, count: int) -> int:
        """The first of so many ports in a row on which nobody listens."""
        for _ in range(_BLOCK):
            if self._next + count > _BLOCK:
                self._next = 0
            first = self._first + self._next
            self._next += count
            if all(_is_free(port) for port in range(first, first + count)):
                return first
        raise AssertionError(f"no {count} free ports in a row from {self._first} to {self._first + _BLOCK - 1}")

    def _claimed(self) -> int:
        """The first port of a block that no other process has; the claim ends with this process."""
        given_out = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        # Where the kernel gives out all of them, the claim alone must do.
        blocks = range(_FIRST, max(given_out, _FIRST + _LEAST * _BLOCK) - _BLOCK, _BLOCK)
        for number in range(len(blocks)):
            first = blocks[(os.getpid() + number) % len(blocks)]
            with contextlib.suppress(OSError):
                self._lock.bind(f"\0allranks-test-ports-{first}")  # an abstract name: it is gone with its owner
                return first
        raise AssertionError(f"all {len(blocks)} blocks of ports are taken")


_block: _Block | None = None


def free_port() -> int:
    """A TCP port of loopback that is this process's to give."""
    return free_neighbours(1)


def free_neighbours(count: int = 2) -> int:
    """The first of so many such ports in a row: data and control."""
    global _block
    if _block is None or _block.owner != os.getpid():
        _block = _Block()
    return _block.neighbours(count)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
