"""The desk where files come in: takes what senders send, has it written and listed, and answers.

    take ─► queue (bounded) ─► one thread: check, write, hash ─► FILE_AT
                                     └ at the END ─► the commits' thread: placed and listed ─► FILE_STORED

It stands beside the commits, and shares only their thread with them, for a row a file. docs/protocol.md §10.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import anyio
import anyio.to_thread

from allranks_bus.errors import BadFileName
from allranks_bus.files.names import check_file_name
from allranks_bus.wire import MAX_CHUNK_BYTES, Chunk, End, FileAt, FileDown, FileRefused, FileStored, FileUp, Offer
from allranks_collector.file_rows import FileInfo, Recorded, Sealed, record
from allranks_collector.file_writer import (
    Close,
    Failed,
    FileWriter,
    Gap,
    Job,
    Known,
    Open,
    Opening,
    Outcome,
    Ready,
    Written,
)
from allranks_collector.files import FileStore, reason_of
from allranks_collector.store import Store, StoreError
from allranks_collector.turns import ROOM_BYTES, WINDOW_BYTES, Turns

logger = logging.getLogger(__name__)

# So much may wait for the disk, of a file and of all of them: what a turn allows, and a piece more.
_MAX_FILE_QUEUED_BYTES = WINDOW_BYTES + MAX_CHUNK_BYTES
_MAX_QUEUED_BYTES = ROOM_BYTES + MAX_CHUNK_BYTES
# Messages without bytes that wait; a sender repeats those that are left out.
_MAX_QUEUED = 8192
# What is written in one go; a collector that ends waits for that.
_GULP_BYTES = 4 * 1024 * 1024
# How long a commit that is under way holds up the writing of files: they must move too where commits never end.
_GIVE_WAY_S = 0.03
_TELL_EVERY_BYTES = 2 * 1024 * 1024
# All that a sender has on its way arrives behind a gap: each piece of it must not ask anew.
_ASK_AGAIN_S = 0.5
_TICK_S = 0.5
_TIDY_S = 60.0
_RETRY_S = 1.0
_COMPLAIN_S = 60.0
# A file may be here before its run's first event is: so many of them wait for it, for so long.
_HOMELESS_S = 10.0
_MAX_COME = 1024
# Of so many files the newest transfer is remembered: FILE_STORED may have been lost on its way.
_MAX_REMEMBERED = 4096
_MAX_HOST = 255

Tell = Callable[[bytes, FileDown], None]
Publish = Callable[[str, str, Mapping[str, Any]], None]
_FileKey: TypeAlias = tuple[str, str, str]


@dataclass
class FileCounters:
    """What has gone through since the start."""

    stored: int = 0
    stored_bytes: int = 0
    received_bytes: int = 0
    dropped: int = 0
    refused: int = 0


@dataclass
class _Arrival:
    """A file that is sent, or in line for it.

    Attributes:
        sender: who offered it last, and is answered.
        told: the offset of the newest FILE_AT.
        gap, gap_at: where something was missing last, and when that was told (monotonic).
    """

    file: FileInfo
    sender: bytes
    offset: int = 0
    told: int = -1
    gap: int = -1
    gap_at: float = float("-inf")


@dataclass
class _Come:
    """A file that is here, and waits to be listed since then (monotonic)."""

    sealed: Sealed
    sender: bytes
    since: float


class FileDesk:
    """Takes files in; all calls come from the event loop's thread, and none of them waits.

    Args:
        tell: sends an answer to a sender.
        publish: told `("files", run id, data)` when something of a run's files has changed.
        writing: the limiter of the one thread that writes into the store.
        max_file_bytes: larger ones are refused.

    Attributes:
        counters: for the metrics page.
        problem: why files cannot be taken at the moment; empty while all is well.
        queued_bytes: what waits in memory to be written.
    """

    def __init__(
        self,
        files: FileStore,
        store: Store,
        *,
        tell: Tell,
        publish: Publish,
        writing: anyio.CapacityLimiter,
        max_file_bytes: int | None = None,
    ) -> None:
        self.counters = FileCounters()
        self.problem = ""
        self.queued_bytes = 0
        self._files = files
        self._store = store
        self._tell = tell
        self._publish = publish
        self._listing = writing
        self._max_file_bytes = max_file_bytes
        self._writer = FileWriter(files, store)
        self._writing = anyio.CapacityLimiter(1)
        self._turns = Turns()
        self._arrivals: dict[bytes, _Arrival] = {}
        self._queue: deque[Job] = deque()
        self._queued_by_transfer: Counter[bytes] = Counter()
        self._come: dict[bytes, _Come] = {}
        # By file, so that no transfer is remembered that a newer one has taken the place of.
        self._remembered: OrderedDict[_FileKey, tuple[bytes, str]] = OrderedDict()
        self._to_write = anyio.Event()
        self._to_list = anyio.Event()
        self._complained_at = float("-inf")

    @property
    def is_busy(self) -> bool:
        """True while a file arrives, or waits for its turn to."""
        return self.arriving_count > 0

    @property
    def arriving_count(self) -> int:
        """How many files arrive, or wait for their turn to."""
        return len(self._arrivals) + len(self._come)

    def arriving(self, run: str) -> list[dict[str, Any]]:
        """The files of a run that are on their way: name, host, size, and the offset that they have come to."""
        # Copied at one go: threads ask, too.
        here = [(arrival.file, arrival.offset) for arrival in list(self._arrivals.values())]
        here += [(come.sealed.file, come.sealed.file.size) for come in list(self._come.values())]
        return [
            {"name": file.name, "host": file.host, "size": file.size, "offset": offset}
            for file, offset in here
            if file.run == run
        ]

    def runs_came(self) -> None:
        """Runs have become known: a file may be waiting for one of them."""
        if self._come:
            self._to_list.set()

    def run_went(self) -> None:
        """A run has been removed: what is remembered of transfers may be so no more."""
        self._remembered.clear()

    def take(self, message: FileUp) -> None:
        """Takes a message in; where there is no room it is left out, for its sender repeats it."""
        if isinstance(message, Offer):
            self._offered(message)
        elif isinstance(message, Chunk | End):
            size = len(message.body) if isinstance(message, Chunk) else 0
            if self._turns.has(message.transfer) and self._has_room_for(message.transfer, size):
                self._turns.hear(message.transfer, time.monotonic())
                self._put(message, size)
            else:
                self.counters.dropped += 1
        else:
            self._put(Close(message.transfer, forget=True))
            if message.transfer in self._arrivals:
                self._leave(message.transfer)

    async def run(self) -> None:
        """Works until it is cancelled; what has come of a file by then stays, and is gone on with."""
        try:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(self._write)
                task_group.start_soon(self._list)
                task_group.start_soon(self._tick)
        finally:
            self._writer.close()

    # -- taking ----------------------------------------------------------------------------------------------------

    def _offered(self, offer: Offer) -> None:
        transfer = offer.transfer
        file = FileInfo(transfer, offer.run, offer.host, offer.name, offer.size, offer.modified_ns, offer.rank)
        problem = self._problem_with(file)
        newest, digest = self._remembered.get(_key(file), (b"", ""))
        if problem:
            self._refuse(offer.sender, transfer, problem, is_final=True)
        elif transfer == newest:
            self._tell(offer.sender, FileStored(transfer, digest))
        elif transfer in self._come:
            self._come[transfer].sender = offer.sender
        else:
            arrival = self._arrivals.get(transfer) or _Arrival(file, offer.sender)
            arrival.sender = offer.sender
            if self._turns.ask(transfer, file.size, time.monotonic()):
                self._arrivals[transfer] = arrival
                self._put(Open(transfer, file.size))
            elif self._turns.is_waiting(transfer):
                self._arrivals[transfer] = arrival

    def _problem_with(self, file: FileInfo) -> str:
        """Why a file that is offered will never be taken, or nothing."""
        try:
            check_file_name(file.name)
        except BadFileName as error:
            return str(error)
        if not 0 < len(file.host) <= _MAX_HOST or not file.host.isprintable():
            return f"a host's name has 1 to {_MAX_HOST} printable characters"
        if self._max_file_bytes is not None and file.size > self._max_file_bytes:
            return f"a file has at most {self._max_file_bytes:,} bytes here, and this one has {file.size:,}"
        arrival = self._arrivals.get(file.transfer)
        # Whoever sends it may be of another rank.
        if arrival is not None and replace(arrival.file, rank=file.rank) != file:
            return "this transfer is another file's"
        return ""

    def _has_room_for(self, transfer: bytes, size: int) -> bool:
        of_this = self._queued_by_transfer[transfer]
        return of_this + size <= _MAX_FILE_QUEUED_BYTES and self.queued_bytes + size <= _MAX_QUEUED_BYTES

    def _put(self, job: Job, size: int = 0) -> None:
        # What is ours is put in always: there is little of it, and nobody repeats it.
        is_ours = isinstance(job, Close) and not job.forget
        if is_ours or len(self._queue) < _MAX_QUEUED:
            self._queue.append(job)
            self._to_write.set()
            if size:
                self._queued_by_transfer[job.transfer] += size
                self.queued_bytes += size

    def _leave(self, transfer: bytes) -> None:
        """It has no turn any more; the next ones have."""
        del self._arrivals[transfer]
        self._turns.leave(transfer)
        self._advance()

    def _advance(self) -> None:
        come, gone = self._turns.advance(time.monotonic())
        for transfer in gone:
            del self._arrivals[transfer]
            self._put(Close(transfer))
        for transfer in come:
            self._put(Open(transfer, self._arrivals[transfer].file.size))

    # -- writing ---------------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        while True:
            await self._to_write.wait()
            # Commits go first: both would take longer at the same time, and only they are waited for by a training.
            with anyio.move_on_after(_GIVE_WAY_S):
                async with self._listing:
                    pass
            jobs = self._gulp()
            outcomes = await anyio.to_thread.run_sync(self._writer.work, jobs, limiter=self._writing)
            for outcome in outcomes:
                self._heed(outcome)
            for transfer in {outcome.transfer for outcome in outcomes if isinstance(outcome, Written)}:
                self._tell_at(transfer)

    def _gulp(self) -> list[Job]:
        """The jobs that come next."""
        jobs: list[Job] = []
        size = 0
        while self._queue and size < _GULP_BYTES:
            job = self._queue.popleft()
            if isinstance(job, Chunk):
                length = len(job.body)
                size += length
                self.queued_bytes -= length
                self._queued_by_transfer[job.transfer] -= length
                if not self._queued_by_transfer[job.transfer]:
                    del self._queued_by_transfer[job.transfer]
            jobs.append(job)
        if not self._queue:
            self._to_write = anyio.Event()
        return jobs

    def _heed(self, outcome: Outcome) -> None:
        """Answers, or has done what is to be done next."""
        arrival = self._arrivals.get(outcome.transfer)
        if arrival is None:  # it has lost its turn meanwhile
            return
        if isinstance(outcome, Opening):
            self._put(Open(outcome.transfer, arrival.file.size))
        elif isinstance(outcome, Written):
            self.counters.received_bytes += outcome.offset - arrival.offset
            arrival.offset = outcome.offset
        elif isinstance(outcome, Ready):
            arrival.offset = outcome.offset
            self._at(arrival)
        elif isinstance(outcome, Gap):
            arrival.offset = outcome.offset
            self._ask_again(arrival)
        elif isinstance(outcome, Known):
            self._leave(outcome.transfer)
            self._remember(arrival.file, outcome.digest)
            self._tell(arrival.sender, FileStored(outcome.transfer, outcome.digest))
        elif isinstance(outcome, Failed):
            self._leave(outcome.transfer)
            self._trouble(outcome.reason)
            self._refuse(arrival.sender, outcome.transfer, outcome.reason, is_final=False)
        else:
            self._leave(outcome.transfer)
            sealed = Sealed(arrival.file, outcome.digest)
            if len(self._come) < _MAX_COME:
                self._come[outcome.transfer] = _Come(sealed, arrival.sender, time.monotonic())
                self._to_list.set()

    def _tell_at(self, transfer: bytes) -> None:
        """Tells a sender how far its file is, every now and then, and where it may be waiting for that."""
        arrival = self._arrivals.get(transfer)
        if arrival is None or not self._turns.has(transfer):
            return
        is_all_written = transfer not in self._queued_by_transfer and arrival.offset > arrival.told
        if is_all_written or arrival.offset - arrival.told >= _TELL_EVERY_BYTES:
            self._at(arrival)

    def _ask_again(self, arrival: _Arrival) -> None:
        """Has a sender go back to where something is missing."""
        now = time.monotonic()
        if arrival.gap != arrival.offset or now - arrival.gap_at >= _ASK_AGAIN_S:
            arrival.gap, arrival.gap_at = arrival.offset, now
            self._at(arrival)

    def _at(self, arrival: _Arrival) -> None:
        arrival.told = arrival.offset
        self._tell(arrival.sender, FileAt(arrival.file.transfer, arrival.offset))
        self._publish("files", arrival.file.run, {})

    # -- listing ---------------------------------------------------------------------------------------------------

    async def _list(self) -> None:
        while True:
            await self._to_list.wait()
            self._to_list = anyio.Event()
            sealed = [come.sealed for come in self._come.values()]
            try:
                done = await anyio.to_thread.run_sync(record, self._store, self._files, sealed, limiter=self._listing)
            except (OSError, StoreError) as error:
                self._trouble(reason_of(error) if isinstance(error, OSError) else str(error))
                await anyio.sleep(_RETRY_S)
                self._to_list.set()
            else:
                self._listed(done)

    def _listed(self, done: Recorded) -> None:
        now = time.monotonic()
        for sealed in done.stored:
            file = sealed.file
            come = self._come.pop(file.transfer)
            self.problem = ""
            self.counters.stored += 1
            self.counters.stored_bytes += file.size
            self._remember(file, sealed.digest)
            self._tell(come.sender, FileStored(file.transfer, sealed.digest))
            self._publish("files", file.run, {})
        for sealed in done.lost:
            self._give_up(sealed, "what had come of it is gone: it must come again")
        for sealed in done.homeless:
            if now - self._come[sealed.file.transfer].since > _HOMELESS_S:
                self._give_up(sealed, f"no run {sealed.file.run} is known here yet")

    def _give_up(self, sealed: Sealed, reason: str) -> None:
        """What is here is not listed; its sender may offer it again."""
        come = self._come.pop(sealed.file.transfer)
        self._refuse(come.sender, sealed.file.transfer, reason, is_final=False)

    async def _tick(self) -> None:
        tidied_at = float("-inf")
        while True:
            now = time.monotonic()
            self._advance()
            if any(now - come.since > _HOMELESS_S for come in self._come.values()):
                self._to_list.set()
            if now - tidied_at >= _TIDY_S:
                tidied_at = now
                await anyio.to_thread.run_sync(self._writer.tidy, limiter=self._writing)
            await anyio.sleep(_TICK_S)

    # -- answers ---------------------------------------------------------------------------------------------------

    def _remember(self, file: FileInfo, digest: str) -> None:
        self._remembered[_key(file)] = file.transfer, digest
        self._remembered.move_to_end(_key(file))
        if len(self._remembered) > _MAX_REMEMBERED:
            self._remembered.popitem(last=False)

    def _refuse(self, sender: bytes, transfer: bytes, reason: str, *, is_final: bool) -> None:
        self.counters.refused += 1
        self._tell(sender, FileRefused(transfer, reason, is_final))

    def _trouble(self, reason: str) -> None:
        self.problem = reason
        now = time.monotonic()
        if now - self._complained_at >= _COMPLAIN_S:
            self._complained_at = now
            logger.warning("a file cannot be stored, events can: %s", reason)


def _key(file: FileInfo) -> _FileKey:
    return file.run, file.host, file.name
