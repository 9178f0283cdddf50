"""Writers made by hand: batches as a training process would send them, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from allranks_bus import events, records
from allranks_bus.events import Kind
from allranks_bus.wire import Batch

T0_NS = 1_700_000_000_000_000_000


class HandWriter:
    """A writer whose batches are made one by one; it counts its records itself.

    Args:
        number: names it: writers of different numbers are different.
        identity: entries of its OPEN map, on top of the least that it must have.
    """

    def __init__(self, number: int = 1, **identity: Any) -> None:
        self.name = number.to_bytes(16, "big")
        self.seq = 0
        self.identity: dict[str, Any] = {
            "run": "run-1",
            "project": "p",
            "launch": "l-1",
            "rank": 0,
            "world_size": 1,
            "host": "h",
            "pid": 1,
            **identity,
        }

    def open(self) -> bytes:
        """The payload that it begins with."""
        return events.pack(Kind.OPEN, T0_NS, self.identity)

    def batch(
        self,
        payloads: Sequence[bytes],
        *,
        first: int | None = None,
        base: int = 0,
        is_urgent: bool = False,
        body: bytes | None = None,
    ) -> Batch:
        """The next batch, or one from `first`; `body` in place of what the payloads give."""
        first_seq = self.seq if first is None else first
        self.seq = first_seq + len(payloads)
        framed = b"".join(map(records.frame, payloads)) if body is None else body
        return Batch(self.name, first_seq, len(payloads), base, T0_NS, framed, is_urgent)


def number(step: int, value: float | None = None, key: str = "i") -> bytes:
    """A LOG record of one number; its value is the step where none is given."""
    return events.pack(Kind.LOG, T0_NS + step, step, {key: float(step) if value is None else value})


def numbers(begin: int, end: int) -> list[bytes]:
    """LOG records of the steps from `begin` up to `end`."""
    return [number(step) for step in range(begin, end)]
