"""Waiting for descriptors."""

from __future__ import annotations

import select
from collections.abc import Iterable


def wait_readable(fds: Iterable[int], timeout_s: float | None) -> list[int]:
    """Those of `fds` that can be read, or are at their end; waits for one so long, None for ever.

    Not by `select`, which takes no descriptor from 1024 on: a training may have more open.
    """
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    return [fd for fd, _ in poller.poll(None if timeout_s is None else 1000 * timeout_s)]


def wait_writable(fd: int) -> None:
    """Waits until something can be written, or never again; as `wait_readable`."""
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    poller.poll()
