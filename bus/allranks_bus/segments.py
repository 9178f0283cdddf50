"""Segments: the files of a spool, and where in them the records lie. docs/protocol.md §9."""

from __future__ import annotations

# A tee uses this, and there is one for each rank: it starts in half the time without pathlib, re and typing.
# ruff: noqa: PTH108, PTH118
import contextlib
import os
import stat
from bisect import bisect_right
from collections.abc import Sequence

from allranks_bus import records
from allranks_bus.errors import SpoolError
from allranks_bus.limits import MAX_BATCH_RECORDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

# A batch ends at a mark: large enough that a message's own cost vanishes, small enough that many ranks share a
# socket. A mark is set by bytes alone: the smallest record has 9 bytes, so MAX_BATCH_RECORDS is never exceeded.
MARK_BYTES = 128 * 1024
_SEQ_DIGITS = 20
_SUFFIX = ".seg"


# Plain classes here: `dataclasses` would be a tenth of what the console's helper takes in memory.
class Segment:
    """One file, and what is known of it: `count` records of `size` bytes together."""

    def __init__(self, path: str, first_seq: int) -> None:
        self.path = path
        self.first_seq = first_seq
        self.count = 0
        self.size = 0
        # (records, bytes) from the start of the segment, ascending, the first (0, 0): where batches may begin.
        self.marks: list[tuple[int, int]] = [(0, 0)]

    @property
    def end_seq(self) -> int:
        return self.first_seq + self.count

    def remove(self) -> None:
        """Removes the file, if it is there."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)


class Span:
    """Where the answer to a `Log.read` lies: `count` records, behind the first `skip` of those in the bytes."""

    def __init__(self, path: str, begin: int, end: int, skip: int, count: int) -> None:
        self.path = path
        self.begin = begin
        self.end = end
        self.skip = skip
        self.count = count


def find_span(segments: Sequence[Segment], seq: int) -> Span | None:
    """The records from `seq` on, up to the next mark; None where there are none."""
    index = bisect_right(segments, seq, key=lambda segment: segment.first_seq) - 1
    if index < 0 or seq >= segments[index].end_seq:
        return None
    segment = segments[index]
    wanted = seq - segment.first_seq
    mark = bisect_right(segment.marks, wanted, key=lambda at: at[0]) - 1
    at, begin = segment.marks[mark]
    whole = (segment.count, segment.size)
    to, end = min(segment.marks[mark + 1], whole) if mark + 1 < len(segment.marks) else whole
    # An ack may fall between two marks: a writer resumed, or a record was passed over.
    return Span(segment.path, begin, end, wanted - at, to - wanted)


class SegmentFiles:
    """Reads from segments; keeps the one that it reads from open."""

    def __init__(self) -> None:
        self._path = ""
        self._fd = -1
        # Where the newest read ended: so many records behind `begin`, and so many bytes into the file. The next one
        # mostly goes on from there, and to look for the place anew would cost more than all else that a tick does.
        self._ended: tuple[str, int, int] | None = None
        self._ended_at = 0

    def read(self, span: Span | None) -> tuple[int, bytes]:
        """As `Log.read`."""
        if span is None:
            return 0, b""
        begin, skip = span.begin, span.skip
        if self._ended == (span.path, begin, skip):
            begin, skip = self._ended_at, 0
        try:
            body = self._pread(span.path, begin, span.end - begin)
        except OSError as error:
            raise SpoolError(f"cannot read {span.path}: {error.strerror or error}") from error
        self._ended, self._ended_at = (span.path, span.begin, span.skip + span.count), span.end
        return span.count, body[_offset_after(body, skip) :] if skip else body

    def _pread(self, path: str, begin: int, size: int) -> bytes:
        if self._path != path:
            self.close()
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._path = path
        body = os.pread(self._fd, size, begin)
        if len(body) != size:
            raise SpoolError(f"{path} has {begin + len(body)} bytes where {begin + size} were written")
        return body

    def close(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
        self._path, self._fd = "", -1


def is_segment(path: Path) -> bool:
    """True for a segment; what else lies in the directory (a link, a pipe, a stranger's file) is let be."""
    return seq_of(path.name) is not None and stat.S_ISREG(path.lstat().st_mode)


def seq_of(name: str) -> int | None:
    """The seq of the first record in the segment of this name; None where no segment has it."""
    digits = name.removesuffix(_SUFFIX)
    is_one = name != digits and len(digits) == _SEQ_DIGITS and digits.isascii() and digits.isdecimal()
    return int(digits) if is_one else None


def load_segment(path: Path) -> Segment:
    """The whole records of a segment, with marks as its writer would have set them."""
    segment = Segment(str(path), int(path.stem))
    body = path.read_bytes()
    for _, end in records.scan(body):
        segment.count += 1
        segment.size = end
        last_count, last_size = segment.marks[-1]
        if end - last_size >= MARK_BYTES or segment.count - last_count >= MAX_BATCH_RECORDS:
            segment.marks.append((segment.count, end))
    return segment


def _offset_after(body: bytes, count: int) -> int:
    """Where the records of `body` after the first `count` begin."""
    for index, (_, end) in enumerate(records.scan(body), 1):
        if index == count:
            return end
    raise SpoolError(f"a segment holds fewer than {count} whole records where it should hold more")


def segment_path(directory: str, first_seq: int) -> str:
    """The file of the segment whose first record is `first_seq`."""
    return os.path.join(directory, f"{first_seq:0{_SEQ_DIGITS}d}{_SUFFIX}")
