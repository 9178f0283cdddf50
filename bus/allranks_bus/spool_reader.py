"""Reading a spool that its writer left: by whoever drains it."""

from __future__ import annotations

import os
from pathlib import Path

from allranks_bus import records
from allranks_bus.errors import SpoolBusy, SpoolError
from allranks_bus.segments import Segment, SegmentFiles, find_span, is_segment, load_segment
from allranks_bus.spool_directory import remove_directory, remove_segments, take_lock


class SpoolReader:
    """The log that a writer left: takes its lock, and gives what is whole in it.

    Where a segment is damaged in its middle, what lies behind the damage is given once what lies before it has been
    released: `base` jumps then.

    Raises:
        SpoolBusy: its writer lives, or somebody else drains it.
        SpoolError: it cannot be read.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._files = SegmentFiles()
        try:
            self._lock_fd = take_lock(directory)
        except BlockingIOError:
            raise SpoolBusy(f"the writer of {directory} is alive, or somebody else drains it") from None
        except OSError as error:
            raise SpoolError(f"cannot open the spool {directory}: {error.strerror or error}") from error
        try:
            self._segments = _load_all(directory)
        except OSError as error:
            os.close(self._lock_fd)
            raise SpoolError(f"cannot read the spool {directory}: {error.strerror or error}") from error

    @property
    def is_empty(self) -> bool:
        """True where nothing whole is left in it."""
        return not self._segments

    @property
    def name(self) -> bytes:
        """The writer's 16 bytes."""
        return bytes.fromhex(self.directory.name)

    @property
    def base(self) -> int:
        return self._segments[0].first_seq if self._segments else 0

    @property
    def end(self) -> int:
        return self._segments[-1].end_seq if self._segments else 0

    @property
    def held_bytes(self) -> int:
        return sum(segment.size for segment in self._segments)

    def opening(self) -> bytes:
        """The payload of the OPEN record that begins the oldest segment.

        Raises:
            SpoolError: there is nothing in the spool.
        """
        if not self._segments:
            raise SpoolError(f"the spool {self.directory} is empty")
        _, body = self.read(self.base)
        begin, end = next(records.scan(body))
        return body[begin:end]

    def read(self, seq: int) -> tuple[int, bytes]:
        return self._files.read(find_span(self._segments, seq))

    def release(self, seq: int) -> None:
        while self._segments and self._segments[0].end_seq <= seq:
            self._segments.pop(0).remove()

    def close(self) -> None:
        """Gives the spool back as it is."""
        self._files.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def remove(self) -> None:
        """Removes the spool: everything in it is stored."""
        remove_segments(self.directory)
        self.close()
        remove_directory(self.directory)


def _load_all(directory: Path) -> list[Segment]:
    """The segments that hold anything, oldest first."""
    segments: list[Segment] = []
    for path in sorted(directory.iterdir()):
        if is_segment(path):
            segment = load_segment(path)
            # One that begins inside of another was begun and given up: its OPEN is all that it holds.
            if segment.count and not (segments and segment.first_seq < segments[-1].end_seq):
                segments.append(segment)
    return segments
