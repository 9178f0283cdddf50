"""Draining: what a writer left in its spool is shipped by somebody else, and the spool removed.

By the same protocol as a living writer, so nothing comes twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from allranks_bus import events
from allranks_bus.addresses import Address
from allranks_bus.courier import Courier
from allranks_bus.errors import ProtocolError
from allranks_bus.spool_reader import SpoolReader
from allranks_bus.wire import Refused

_WAIT_S = 0.25
# A collector that looks where a spool is meant to go has it for no longer: who finds it busy may ask again.
GLANCE_S = 0.2
_ELSEWHERE = "it is not meant for here"


@dataclass(frozen=True)
class Drained:
    """What became of a spool.

    Attributes:
        run: the run's id, as far as the spool tells.
        records: how many it held.
        is_done: all of it is stored, and the spool is removed.
        problem: why not, in one line; empty where it is done.
        is_elsewhere: it is meant for another collector.
    """

    directory: Path
    run: str
    records: int
    is_done: bool
    problem: str = ""
    is_elsewhere: bool = False


def drain(
    directory: Path,
    address: Address,
    *,
    timeout_s: float = 30.0,
    accepts: Callable[[Mapping[str, Any]], bool] = lambda _: True,
    should_stop: Callable[[], bool] = lambda: False,
) -> Drained:
    """Ships what a writer left to the collector at `address`, and removes the spool once all is stored. Blocks.

    Args:
        timeout_s: without any progress.
        accepts: asked with the writer's identity; False leaves the spool alone.
        should_stop: asked four times a second.

    Raises:
        SpoolBusy: the writer lives, or somebody else drains it.
        SpoolError: the spool cannot be read.
    """
    spool = SpoolReader(directory)
    try:
        if spool.is_empty:
            spool.remove()
            return Drained(directory, "", 0, is_done=True)
        identity = _identity(spool)
        run, records = str(identity.get("run", "")), spool.end - spool.base
        if not accepts(identity):
            return Drained(directory, run, records, is_done=False, problem=_ELSEWHERE, is_elsewhere=True)
        problem = _ship(spool, address, timeout_s, should_stop)
        if not problem:
            spool.remove()
        return Drained(directory, run, records, is_done=not problem, problem=problem)
    finally:
        spool.close()


def _ship(spool: SpoolReader, address: Address, timeout_s: float, should_stop: Callable[[], bool]) -> str:
    """Ships all of `spool`; returns what came in the way, or nothing."""
    courier = Courier(spool.name, spool)
    try:
        courier.connect(address)
        moved_at, acked = time.monotonic(), -1
        # A beat in a dead writer's name is no sign of life; its answer tells how much is stored already.
        beat_at = 0.0
        while True:
            now = time.monotonic()
            if now >= beat_at:
                courier.beat({"drained": True})
                beat_at = now + 1.0
            for message in courier.hear():
                if isinstance(message, Refused):
                    return message.reason
            courier.pump()
            if courier.shipment.is_done:
                return ""
            if courier.shipment.acked != acked:
                moved_at, acked = now, courier.shipment.acked
            if now - moved_at > timeout_s:
                heard = "answers, but does not store it" if courier.heard_at is not None else "does not answer"
                return f"the collector at {address} {heard}"
            if should_stop():
                return "stopped"
            courier.wait(_WAIT_S)
    finally:
        courier.close()


def _identity(spool: SpoolReader) -> Mapping[str, Any]:
    try:
        event = events.unpack(spool.opening())
        return events.check_identity(event[2])
    except (ProtocolError, IndexError):
        return {}
