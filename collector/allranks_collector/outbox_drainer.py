"""The drainer of outboxes: has what trainings of this host left of their files shipped, by a process of its own.

While a training lives, and for as long after as it takes, its own shipper sends its files. This is for those whose
shipper was killed too, or found no collector.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.to_thread

from allranks_bus.addresses import Address
from allranks_bus.files.outbox import LOG, Found, find_outboxes
from allranks_bus.helpers import helper_environment

logger = logging.getLogger(__name__)

_EVERY_S = 1.0
# What could not be shipped is tried again after this long, then twice as long, and so on.
_AGAIN_S, _AGAIN_AT_MOST_S = 10.0, 600.0


class OutboxDrainer:
    """Looks for orphaned outboxes under `roots`, and has them shipped to this collector, one at a time.

    Args:
        accepts: asked with an outbox's destination: whether it is meant for here.

    Attributes:
        is_busy: whether an outbox is being shipped, from before its shipper starts until it has ended.
    """

    def __init__(self, roots: tuple[Path, ...], address: Address, *, accepts: Callable[[str], bool]) -> None:
        self._roots = roots
        self._address = address
        self._accepts = accepts
        self._not_before: dict[Path, float] = {}
        self._pauses_s: dict[Path, float] = {}
        self.is_busy = False

    async def run(self) -> None:
        """Looks again and again, until it is cancelled; a shipping process has ended by then."""
        while True:
            for found in await anyio.to_thread.run_sync(self._orphans):
                await self._ship(found)
            await anyio.sleep(_EVERY_S)

    async def last_look(self, timeout_s: float) -> None:
        """One more look, at everything, when `run` has ended: what is left in a pod's own disk dies with the pod.

        What does not come in by then goes on another time where it was.
        """
        self._not_before.clear()
        with anyio.move_on_after(timeout_s):
            for found in await anyio.to_thread.run_sync(self._orphans):
                await self._ship(found)

    def _orphans(self) -> list[Found]:
        """Those whose trainings and shippers are gone, and that are due."""
        now = time.monotonic()
        return [
            found
            for root in self._roots
            for found in find_outboxes(root)
            if not (found.has_users or found.is_shipped)
            and self._not_before.get(found.directory, 0.0) <= now
            and (found.about is None or self._accepts(found.about.destination))
        ]

    async def _ship(self, found: Found) -> None:
        directory = found.directory
        self.is_busy = True
        try:
            status = await self._run_shipper(directory)
        except OSError as error:
            logger.warning("the files in %s cannot be shipped: %s", directory, error)
            status = 1
        finally:
            self.is_busy = False
        if not status and not directory.exists():
            logger.info("the files in %s are stored", directory)
            self._pauses_s.pop(directory, None)
            self._not_before.pop(directory, None)
            return
        pause_s = self._pauses_s.get(directory, _AGAIN_S)
        self._pauses_s[directory] = min(2 * pause_s, _AGAIN_AT_MOST_S)
        self._not_before[directory] = time.monotonic() + pause_s

    async def _run_shipper(self, directory: Path) -> int:
        """Its exit code; it is killed where this is cancelled, and goes on another time where it was."""
        with open(directory / LOG, "ab") as log:
            process = await anyio.open_process(
                [sys.executable, "-m", "allranks_bus.files.shipper", str(directory), str(self._address)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A folder of ours: there no file of the user's shadows a module.
                cwd=directory,
                env=helper_environment(os.environ),
                start_new_session=True,
            )
        try:
            return await process.wait()
        finally:
            with anyio.CancelScope(shield=True):
                if process.returncode is None:
                    process.kill()
                    await process.wait()
