"""The writing of files as they come in: one thread's work, from the pieces that wait to what is to be answered.

Pieces are taken only in order and with the right CRC-32. What cannot be written costs its file the turn, and nobody
else anything: what has come of it stays, and is gone on with when it is offered again.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from allranks_bus.wire import Chunk, End
from allranks_collector.file_rows import digest_of
from allranks_collector.files import FileStore, NoRoom, reason_of
from allranks_collector.partials import Partial
from allranks_collector.store import Store, StoreError

# What has come before is read again in parts, so that the pieces of other files come in between.
TAKE_UP_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Open:
    """Find out where a transfer stands, and be ready for more of it."""

    transfer: bytes
    size: int


@dataclass(frozen=True)
class Close:
    """Let go of a transfer; with `forget`, of what has come of it too."""

    transfer: bytes
    forget: bool = False


@dataclass(frozen=True)
class Opening:
    """What has come before is still being read: open it again."""

    transfer: bytes


@dataclass(frozen=True)
class Ready:
    """It is open: all before `offset` is there."""

    transfer: bytes
    offset: int


@dataclass(frozen=True)
class Written:
    """All before `offset` is there now."""

    transfer: bytes
    offset: int


@dataclass(frozen=True)
class Gap:
    """What came does not go on from `offset`, or was damaged on its way: it must come again from there."""

    transfer: bytes
    offset: int


@dataclass(frozen=True)
class Whole:
    """All has come, and is durable."""

    transfer: bytes
    digest: str


@dataclass(frozen=True)
class Known:
    """It is stored already."""

    transfer: bytes
    digest: str


@dataclass(frozen=True)
class Failed:
    """It cannot be taken now."""

    transfer: bytes
    reason: str


Job: TypeAlias = Open | Chunk | End | Close
Outcome: TypeAlias = Opening | Ready | Written | Gap | Whole | Known | Failed


class FileWriter:
    """Works jobs off; all calls come from one thread at a time."""

    def __init__(self, files: FileStore, store: Store) -> None:
        self._files = files
        self._store = store
        self._open: dict[bytes, Partial] = {}

    def work(self, jobs: Iterable[Job]) -> list[Outcome]:
        """What came of these jobs, in their order; of jobs for what is not open, nothing."""
        done: list[Outcome] = []
        for job in jobs:
            try:
                outcome = self._do(job)
            except (OSError, NoRoom, StoreError) as error:
                self._let_go(job.transfer)
                reason = str(error) if isinstance(error, StoreError) else reason_of(error)
                outcome = Failed(job.transfer, reason)
            if outcome is not None:
                done.append(outcome)
        return done

    def tidy(self) -> None:
        """Removes what nobody will go on with."""
        self._files.tidy()

    def close(self) -> None:
        """Lets go of everything; what has come stays."""
        for transfer in list(self._open):
            self._let_go(transfer)

    def _do(self, job: Job) -> Outcome | None:
        if isinstance(job, Open):
            return self._begin(job)
        partial = self._open.get(job.transfer)
        if isinstance(job, Close):
            self._let_go(job.transfer)
            if job.forget:
                self._files.forget(job.transfer)
            return None
        if partial is None or not partial.is_taken_up:
            return None
        return self._append(partial, job) if isinstance(job, Chunk) else self._end(partial, job)

    def _begin(self, job: Open) -> Outcome:
        partial = self._open.get(job.transfer)
        if partial is None:
            digest = digest_of(self._store, self._files, job.transfer)
            if digest is not None:
                return Known(job.transfer, digest)
            partial = self._open[job.transfer] = self._files.open(job.transfer, job.size)
        if not partial.is_taken_up:
            partial.take_up(TAKE_UP_BYTES)
        return Ready(job.transfer, partial.offset) if partial.is_taken_up else Opening(job.transfer)

    def _append(self, partial: Partial, chunk: Chunk) -> Outcome:
        size = len(chunk.body)
        fits = chunk.offset == partial.offset and partial.offset + size <= partial.size
        if not fits or zlib.crc32(chunk.body) != chunk.crc32:
            return Gap(chunk.transfer, partial.offset)
        self._files.check_room(size)
        partial.write(chunk.body)
        return Written(chunk.transfer, partial.offset)

    def _end(self, partial: Partial, end: End) -> Outcome:
        if not partial.offset == partial.size == end.size:
            return Gap(end.transfer, partial.offset)
        del self._open[end.transfer]
        try:
            return Whole(end.transfer, partial.seal())
        finally:
            partial.close()

    def _let_go(self, transfer: bytes) -> None:
        partial = self._open.pop(transfer, None)
        if partial is not None:
            with contextlib.suppress(OSError):
                partial.close()
