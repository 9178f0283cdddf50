"""Keeping: what was printed goes into the tee's spool; where that takes nothing, what is lost is counted."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from allranks_bus.errors import SpoolError
from allranks_bus.limits import WRITER_ID_BYTES
from allranks_bus.spool import SpoolWriter
from allranks_bus.tee import payloads
from allranks_bus.tee.spec import Spec

# The newest segment stays on disk for as long as the tee lives.
SEGMENT_BYTES = 4 * 1024 * 1024
_RETRY_S = 1.0


class Keeper:
    """The spool of one tee, made with the first that is kept; nothing here raises.

    Attributes:
        name: of the writer whose spool it is.
    """

    def __init__(self, spec: Spec) -> None:
        self.name = spec.name
        self._spec = spec
        self._writer: SpoolWriter | None = None
        self._retry_at = 0.0
        self._problem = ""
        self._lost = self._lost_bytes = 0

    def keep(self, time_ns: int, stream: int, body: bytes) -> None:
        """Adds bytes of a stream."""
        writer = self._open()
        if (
            writer is None
            or not self._report_loss(writer)
            or not writer.append(payloads.console(time_ns, stream, body))
        ):
            self.lose(1, len(body))

    def lose(self, records: int, size: int) -> None:
        """Counts what could not be kept."""
        self._lost += records
        self._lost_bytes += size

    def forget_released(self) -> None:
        """Sees what has been shipped and removed by others, so that there is room below the cap again."""
        writer = self._writer
        if writer is not None and writer.held_bytes >= 2 * min(SEGMENT_BYTES, self._spec.cap_bytes // 4):
            with contextlib.suppress(OSError, ValueError):
                writer.release(min(int(path.stem) for path in writer.directory.glob("*.seg")))

    @property
    def is_empty(self) -> bool:
        """True where nothing has been kept yet under this name."""
        return self._writer is None and not self._lost

    def begin_another(self) -> None:
        """Closes the spool, and goes on with another writer's, made with the next that is kept."""
        self.close()
        self._writer = None
        self.name = os.urandom(WRITER_ID_BYTES)

    def close(self) -> None:
        """The last record; from then on anybody may drain the spool. There is none where nothing was printed."""
        writer = self._open() if self._lost else self._writer
        if writer is not None:
            writer.try_again()
            self._report_loss(writer)
            writer.seal(payloads.close(time.time_ns()))
            writer.close()

    def _open(self) -> SpoolWriter | None:
        """The spool; None while it cannot be made."""
        if self._writer is None and time.monotonic() >= self._retry_at:
            spec = self._spec
            try:
                self._writer = SpoolWriter(
                    Path(spec.root),
                    self.name,
                    lambda: payloads.stamped(spec.opening, time.time_ns()),
                    segment_bytes=SEGMENT_BYTES,
                    cap_bytes=spec.cap_bytes,
                )
            except SpoolError as error:
                self._problem = str(error)
                self._retry_at = time.monotonic() + _RETRY_S
        return self._writer

    def _report_loss(self, writer: SpoolWriter) -> bool:
        """Records what was lost before; False while the spool takes nothing."""
        if self._lost:
            self._problem = writer.problem or self._problem or "the disk was too slow"
            if not writer.append(payloads.dropped(time.time_ns(), self._lost, self._lost_bytes, self._problem)):
                return False
            self._lost = self._lost_bytes = 0
            self._problem = ""
        return True
