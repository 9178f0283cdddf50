"""A spool that another process writes, read and released while it grows.

A training process ships what its console's helper keeps in this way. No lock is taken: the writer holds it.
"""

from __future__ import annotations

import os
from pathlib import Path

from allranks_bus import records
from allranks_bus.limits import MAX_BATCH_RECORDS
from allranks_bus.segments import MARK_BYTES, Segment, SegmentFiles, find_span, is_segment, segment_path

# So much is taken in at one look, which is made in a training process; any record fits in.
LOOK_BYTES = records.HEADER.size + records.MAX_PAYLOAD_BYTES


class SpoolFollower:
    """The log in `directory`, as far as it had come at the last `look`; the directory need not exist yet.

    The newest segment is never released: the writer has it open.

    Attributes:
        is_there: whether the directory was there at the last look, as far as that has found no segment.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.is_there = False
        self._segments: list[Segment] = []
        self._files = SegmentFiles()
        self._fd = -1

    @property
    def base(self) -> int:
        return self._segments[0].first_seq if self._segments else 0

    @property
    def end(self) -> int:
        return self._segments[-1].end_seq if self._segments else 0

    def look(self) -> bool:
        """Takes in what has been written since the last look, up to LOOK_BYTES; True where there may be more."""
        if not self._segments and not self._begin(self._first_seq()):
            return False
        if self._grow(self._segments[-1]):
            return True
        # Its successor is named by the seq after its last record, so whatever comes now is in the successor.
        return self._begin(self.end)

    def read(self, seq: int) -> tuple[int, bytes]:
        """As `Log.read`.

        Raises:
            SpoolError: somebody else has drained the spool meanwhile, or it cannot be read.
        """
        return self._files.read(find_span(self._segments, seq))

    def release(self, seq: int) -> None:
        while len(self._segments) > 1 and self._segments[0].end_seq <= seq:
            self._segments.pop(0).remove()

    def close(self) -> None:
        """Closes its descriptors; the spool stays as it is."""
        self._files.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _begin(self, first_seq: int | None) -> bool:
        """Goes over to the segment that begins there, once it holds a record."""
        if first_seq is None:
            return False
        path = segment_path(str(self.directory), first_seq)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        old, self._fd = self._fd, fd
        segment = Segment(path, first_seq)
        if not self._grow(segment):
            # Its writer is in the middle of it, or could not begin it and goes on with the one before.
            self._fd = old
            os.close(fd)
            return False
        self._segments.append(segment)
        if old >= 0:
            os.close(old)
        return True

    def _grow(self, segment: Segment) -> bool:
        """Counts the whole records that have come in the newest segment; True where there are any."""
        if os.fstat(self._fd).st_size <= segment.size:
            return False
        body = os.pread(self._fd, LOOK_BYTES, segment.size)
        begin, found = segment.size, 0
        for _, end in records.scan(body):
            found += 1
            segment.count += 1
            segment.size = begin + end
            last_count, last_size = segment.marks[-1]
            if segment.size - last_size >= MARK_BYTES or segment.count - last_count >= MAX_BATCH_RECORDS:
                segment.marks.append((segment.count, segment.size))
        return found > 0

    def _first_seq(self) -> int | None:
        # One call of the system where there is nothing: a training's thread waits for the GIL at each.
        try:
            names = os.listdir(self.directory)  # noqa: PTH208
        except OSError as error:
            self.is_there = not isinstance(error, FileNotFoundError)
            return None
        self.is_there = True
        try:
            return min(
                (int(path.stem) for path in map(self.directory.joinpath, names) if is_segment(path)), default=None
            )
        except OSError:  # somebody is removing it
            return None
