"""A log: records in order, each with the seq that it keeps. What ships one need not know whose it is."""

from __future__ import annotations

from typing import Protocol


class Log(Protocol):
    """What a shipper needs of a spool: a writer's own, or one that its writer left."""

    @property
    def base(self) -> int:
        """The seq of the oldest record that is still held; the first of a segment."""
        ...

    @property
    def end(self) -> int:
        """The seq that the next record will have."""
        ...

    def read(self, seq: int) -> tuple[int, bytes]:
        """Records from `seq` on, up to the next mark or the end: how many, and their bytes; (0, b"") at the end."""
        ...

    def release(self, seq: int) -> None:
        """Forgets the segments that lie wholly before `seq`."""
        ...
