"""What `sync` does with outboxes: the files of runs that are still on this disk, shipped with a progress bar."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from allranks_bus.addresses import Address
from allranks_bus.files.outbox import Found, find_outboxes
from allranks_bus.files.shipper import Progress as Shipping
from allranks_bus.files.shipper import Shipped, ship
from allranks_collector.cli.output import clean, console

Bars: TypeAlias = Progress


def outboxes_in(places: Iterable[Path]) -> list[Found]:
    """Each place is a folder of outboxes, or an outbox itself."""
    found: list[Found] = []
    for place in places:
        inside = list(find_outboxes(place))
        found += inside or [box for box in find_outboxes(place.parent) if box.directory == place]
    return found


@contextmanager
def bars() -> Generator[Bars]:
    """Where progress is shown: on a terminal's stderr, and else nowhere."""
    err = console(stderr=True, redrawn=True)
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        console=err,
        disable=not err.is_terminal,
        transient=True,
    ) as progress:
        yield progress


def ship_files(found: Found, address: Address, timeout_s: float, progress: Bars) -> Shipped:
    """Ships all that an outbox has, and tells what became of it.

    Args:
        timeout_s: without any progress.

    Raises:
        SpoolBusy: another process ships it.
        SpoolError: it cannot be read.
    """
    task = progress.add_task(clean(found.about.run if found.about else found.directory.name), total=None)
    watch = _Watch(progress, task, timeout_s)
    try:
        return ship(
            found.directory,
            str(address),
            until_done=True,
            on_progress=watch.see,
            should_stop=watch.has_waited_in_vain,
        )
    finally:
        progress.remove_task(task)


class _Watch:
    """Shows how far a shipping is, and notes when it gets no further."""

    def __init__(self, progress: Bars, task: TaskID, timeout_s: float) -> None:
        self._progress, self._task, self._timeout_s = progress, task, timeout_s
        self._seen = (-1, -1)
        self._moved_at = time.monotonic()

    def see(self, now: Shipping) -> None:
        """Takes in how far it is."""
        if self._seen != (now.stored, now.bytes_sent):
            self._seen, self._moved_at = (now.stored, now.bytes_sent), time.monotonic()
        self._progress.update(self._task, completed=now.bytes_sent, total=now.bytes_sent + now.bytes_left)

    def has_waited_in_vain(self) -> bool:
        """True where it has been given its time."""
        return time.monotonic() - self._moved_at > self._timeout_s
