"""The drainer: brings in by itself what writers of this host left that died, or that found no collector."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from allranks_bus.addresses import Address
from allranks_bus.draining import Drained, drain
from allranks_bus.errors import AllranksError
from allranks_bus.spool_directory import find_spools

logger = logging.getLogger(__name__)

_EVERY_S = 0.5
# What could not be drained is tried again after this long, then twice as long, and so on.
_AGAIN_S, _AGAIN_AT_MOST_S = 10.0, 600.0


class Drainer:
    """Looks for orphaned spools under `roots`, and ships them to this collector's own address, one at a time.

    Args:
        accepts: asked with a spool's identity: whether it is meant for here.
        is_alive: asked with a writer's name: such a spool is not even opened.
    """

    def __init__(
        self,
        roots: tuple[Path, ...],
        address: Address,
        *,
        accepts: Callable[[Mapping[str, Any]], bool],
        is_alive: Callable[[bytes], bool],
    ) -> None:
        self._roots = roots
        self._address = address
        self._accepts = accepts
        self._is_alive = is_alive
        self._stop_at = math.inf
        # What is not meant for here is opened once, not at every look; what failed, again after a while.
        self._not_before: dict[Path, float] = {}
        self._pauses_s: dict[Path, float] = {}

    async def run(self) -> None:
        """Looks again and again, until it is cancelled."""
        while time.monotonic() < self._stop_at:
            await self._look()
            await anyio.sleep(_EVERY_S)

    def stop(self) -> None:
        """Lets `run` end soon: a drain under way is given up, and goes on where it was when it is begun again."""
        self._stop_at = time.monotonic()

    async def last_look(self, timeout_s: float) -> None:
        """One more look, at everything: what is left in a pod's own disk dies with the pod."""
        self._stop_at = time.monotonic() + timeout_s
        self._not_before = {path: at for path, at in self._not_before.items() if at == math.inf}
        # Who was thought to live a moment ago may have been killed with the pod: the spool's lock tells.
        self._is_alive = _nobody_is_alive
        await self._look()

    async def _look(self) -> None:
        for directory in (directory for root in self._roots for directory in find_spools(root)):
            now = time.monotonic()
            if now >= self._stop_at:
                return
            if self._not_before.get(directory, 0.0) > now or self._is_alive(bytes.fromhex(directory.name)):
                continue
            bring_in = partial(
                drain,
                directory,
                self._address,
                accepts=self._accepts,
                should_stop=lambda: time.monotonic() >= self._stop_at,
            )
            try:
                drained = await anyio.to_thread.run_sync(bring_in)
            except AllranksError:  # its writer lives, or somebody else is at it
                continue
            self._note(drained)

    def _note(self, drained: Drained) -> None:
        if drained.records:
            problem = drained.problem and f": {drained.problem}"
            logger.info("drained %s: %d records%s", drained.directory, drained.records, problem)
        if drained.is_elsewhere:
            self._not_before[drained.directory] = math.inf
        elif not drained.is_done:
            pause_s = self._pauses_s.get(drained.directory, _AGAIN_S)
            self._pauses_s[drained.directory] = min(2 * pause_s, _AGAIN_AT_MOST_S)
            self._not_before[drained.directory] = time.monotonic() + pause_s


def _nobody_is_alive(_: bytes) -> bool:
    return False
