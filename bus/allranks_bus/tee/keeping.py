"""Keeping: what was printed goes into a spool; what is beyond the limits, or finds no room, is counted and told."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque

from allranks_bus.errors import SpoolError
from allranks_bus.limits import WRITER_ID_BYTES
from allranks_bus.segments import seq_of
from allranks_bus.spool import SpoolWriter
from allranks_bus.spool_directory import StrPath
from allranks_bus.tee import payloads
from allranks_bus.tee.copying import Gathered
from allranks_bus.tee.limits import Allowance, Limits, Loss

# The newest segment stays on disk for as long as its writer lives.
SEGMENT_BYTES = 4 * 1024 * 1024
# Of what is beyond the limits the newest is kept at the end: it may be why it ended.
LAST_WORDS_BYTES = 64 * 1024
# A loss that goes on is told after the first, and then each time after the second.
TELL_FIRST_S = 1.0
TELL_EVERY_S = 60.0
_RETRY_S = 1.0


class Keeper:
    """The spool of one console, made with the first that is kept; nothing here raises. For one thread at a time.

    Args:
        root, name, cap_bytes: of the spool.
        opening: the payload of its OPEN record, of any time.

    Attributes:
        name: of the writer whose spool it is.
    """

    def __init__(self, root: StrPath, name: bytes, opening: bytes, *, cap_bytes: int, limits: Limits) -> None:
        self.name = name
        self._root = root
        self._opening = opening
        self._cap_bytes = cap_bytes
        self._writer: SpoolWriter | None = None
        self._retry_at = 0.0
        self._problem = ""
        self._allowance = Allowance(limits)
        # What is beyond the limits, newest last, until there is more of it than last words: (time, stream, bytes).
        self._put_off: deque[tuple[int, int, bytes]] = deque()
        self._put_off_bytes = 0
        # Streams that have lost something since they were last kept, perhaps in the middle of a line.
        self._torn: set[int] = set()
        self._loss = Loss()
        self._reason = ""
        self._lost_ns = 0
        self._tell_at = 0.0
        self._told_at = float("-inf")

    def keep(self, time_ns: int, stream: int, body: bytes) -> None:
        """Adds bytes of a stream; at most `payloads.MAX_CHUNK_BYTES`."""
        if self._allowance.take(len(body), time.monotonic()):
            self._keep_put_off()
            self._write(time_ns, stream, body)
            return
        self._put_off.append((time_ns, stream, body))
        self._put_off_bytes += len(body)
        while self._put_off_bytes > LAST_WORDS_BYTES:
            self._give_up_oldest()

    def keep_all(self, gathered: Gathered) -> None:
        """Adds all that waits there."""
        chunks, loss = gathered.take()
        for chunk in chunks:
            self.keep(chunk.time_ns, chunk.stream, chunk.body())
        self.lose(time.time_ns(), loss, "the disk was too slow")
        self._forget_released()

    def keep_error_file(self, content: bytes) -> None:
        """Adds what torchelastic's error file of the rank says."""
        writer = self._open() if content else None
        if writer is not None:
            writer.append(payloads.error_file(time.time_ns(), content))

    def lose(self, time_ns: int, loss: Loss, reason: str) -> None:
        """Counts what could not be kept, the first of it at `time_ns`."""
        if not loss:
            return
        if not self._loss:
            self._lost_ns = time_ns
            self._tell_at = max(time.monotonic() + TELL_FIRST_S, self._told_at + TELL_EVERY_S)
        self._loss.join(loss)
        self._reason = reason

    def wait_s(self) -> float | None:
        """How long until `look` has something to do; None where nothing waits."""
        now = time.monotonic()
        waits = [self._allowance.wait_s(now)] if self._put_off else []
        if self._loss:
            waits.append(max(0.0, self._tell_at - now))
        return min((wait_s for wait_s in waits if wait_s is not None), default=None)

    def look(self) -> None:
        """Keeps what was put off, once there is room for it again; tells of a loss that goes on."""
        now = time.monotonic()
        if self._put_off and self._allowance.is_open(now):
            self._keep_put_off()
        if self._loss and now >= self._tell_at:
            self._tell_at = now + TELL_EVERY_S
            writer = self._open()
            if writer is not None:
                self._report_loss(writer)

    @property
    def is_empty(self) -> bool:
        """True where nothing has been kept yet under this name."""
        return self._writer is None and not (self._loss or self._put_off)

    def begin_another(self) -> None:
        """Closes the spool, and goes on with another writer's, made with the next that is kept."""
        self.close()
        self._writer = None
        self.name = os.urandom(WRITER_ID_BYTES)

    def settle(self) -> None:
        """Keeps the last words, and tells of what was lost, as what follows may never be kept."""
        self._keep_put_off()
        writer = self._open() if self._loss else self._writer
        if writer is not None:
            writer.try_again()
            self._report_loss(writer)

    def close(self) -> None:
        """The last record; from then on anybody may drain the spool. There is none where nothing was printed."""
        self.settle()
        if self._writer is not None:
            self._writer.seal(payloads.close(time.time_ns()))
            self._writer.close()

    def abandon(self) -> None:
        """In a forked child: closes descriptors; takes no lock."""
        if self._writer is not None:
            self._writer.abandon()

    def _forget_released(self) -> None:
        """Sees what has been shipped and removed by others, so that there is room below the cap again."""
        writer = self._writer
        if writer is not None and writer.held_bytes >= 2 * min(SEGMENT_BYTES, self._cap_bytes // 4):
            with contextlib.suppress(OSError, ValueError):
                seqs = map(seq_of, os.listdir(os.path.join(self._root, self.name.hex())))  # noqa: PTH118, PTH208
                writer.release(min(seq for seq in seqs if seq is not None))

    def _give_up_oldest(self) -> None:
        """Loses the oldest of what was put off, but for the end of the line that it begins with."""
        time_ns, stream, body = self._put_off.popleft()
        self._put_off_bytes -= len(body)
        if stream not in self._torn:
            self._torn.add(stream)
            end = body.find(b"\n") + 1
            if end:
                self._write(time_ns, stream, body[:end])
                body = body[end:]
        self._lose(time_ns, body, self._allowance.reason)

    def _keep_put_off(self) -> None:
        """Keeps what was put off; after a loss from the next line on, if there is one."""
        while self._put_off:
            time_ns, stream, body = self._put_off.popleft()
            if stream in self._torn:
                begin = body.find(b"\n") + 1
                self._lose(time_ns, body[:begin], self._allowance.reason)
                body = body[begin:]
            self._torn.discard(stream)
            self._write(time_ns, stream, body)
        self._put_off_bytes = 0

    def _lose(self, time_ns: int, body: bytes, reason: str) -> None:
        if body:
            loss = Loss()
            loss.add(body)
            self.lose(time_ns, loss, reason)

    def _write(self, time_ns: int, stream: int, body: bytes) -> None:
        if not body:
            return
        writer = self._open()
        if (
            writer is None
            or not self._report_loss(writer)
            or not writer.append(payloads.console(time_ns, stream, body))
        ):
            self._lose(time_ns, body, self._problem if writer is None else writer.problem)

    def _open(self) -> SpoolWriter | None:
        """The spool; None while it cannot be made."""
        if self._writer is None and time.monotonic() >= self._retry_at:
            try:
                self._writer = SpoolWriter(
                    self._root,
                    self.name,
                    lambda: payloads.stamped(self._opening, time.time_ns()),
                    segment_bytes=SEGMENT_BYTES,
                    cap_bytes=self._cap_bytes,
                )
            except SpoolError as error:
                self._problem = str(error)
                self._retry_at = time.monotonic() + _RETRY_S
        return self._writer

    def _report_loss(self, writer: SpoolWriter) -> bool:
        """Records what was lost before; False while the spool takes nothing."""
        if self._loss:
            if not writer.append(payloads.dropped(self._lost_ns, self._loss, self._reason)):
                return False
            self._loss = Loss()
            self._told_at = time.monotonic()
        return True
