"""The pipeline: from the sockets to the store, and back to the writers.

    receive ─► pending (bounded) ─► commit in a worker thread ─► acks, watch, live notes
    beats   ─► answered at once with the durable position, and told to the watch (watch.py)
    files   ─► a desk of their own (file_desk.py)

One task group; it runs on asyncio and on trio alike.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.to_thread

from allranks_bus.errors import ProtocolError, VersionMismatch
from allranks_bus.sockets import CollectorSockets
from allranks_bus.wire import Ack, Batch, Beat, Frame, Refused, unpack_up
from allranks_collector.alerts.desk import AlertDesk
from allranks_collector.commits import Committed, EventNote, Note, StateNote
from allranks_collector.file_desk import FileDesk
from allranks_collector.file_rows import remove_run
from allranks_collector.files import FileStore
from allranks_collector.health import ENDED, Change, Sign
from allranks_collector.ingest import Ingest
from allranks_collector.pace import Patience
from allranks_collector.stacks_desk import StacksDesk
from allranks_collector.store import Store, StoreError
from allranks_collector.watch import Listener, Watch, Watched

logger = logging.getLogger(__name__)

_GULP_BYTES = 4 * 1024 * 1024
# So much waits that gathering more would gain nothing: commit at once.
_ENOUGH_BYTES = 4 * 1024 * 1024
_RETRY_S = 1.0
_COMPLAIN_S = 10.0
# What a message takes in memory beside its body, and how many writers may wait to be told their position.
_MESSAGE_BYTES = 512
_MAX_ASKING = 20_000

Publish = Callable[[str, str, Mapping[str, Any]], None]


@dataclass
class Counters:
    """What has gone through since the start."""

    batches: int = 0
    beats: int = 0
    events: int = 0
    points: int = 0
    commits: int = 0
    failed_commits: int = 0
    rejected: int = 0
    commit_s: float = 0.0


@dataclass
class _Waiting:
    """What the next commit takes."""

    batches: list[Batch] = field(default_factory=list[Batch])
    size: int = 0
    asking: set[bytes] = field(default_factory=set[bytes])
    notes: list[Note] = field(default_factory=list["Note"])
    ended_runs: set[int] = field(default_factory=set[int])
    # (topic, run id, data), for when it is stored: who is told looks at once, and must find it.
    news: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list[tuple[str, str, dict[str, Any]]])


class Pipeline:
    """Takes in what writers send, stores it, answers, and has them watched.

    Args:
        publish: told `(topic, run id, data)` of what has changed, for those who look on.
        max_file_bytes: larger files are refused.
        bar_history: each state of a progress bar becomes a line.
        alerts: told what happens; None: nobody is.

    Attributes:
        counters: for the metrics page.
        watch: who writes, and how they are.
        files: the desk where files come in.
        stacks: the desk that asks ranks where they stand.
        problem: why nothing can be stored at the moment; empty while all is well.
    """

    def __init__(
        self,
        store: Store,
        sockets: CollectorSockets,
        files: FileStore,
        *,
        patience: Patience,
        commit_interval_s: float,
        max_pending_bytes: int,
        publish: Publish,
        max_file_bytes: int | None = None,
        bar_history: bool = False,
        alerts: AlertDesk | None = None,
    ) -> None:
        self.counters = Counters()
        self.problem = ""
        self.ingest = Ingest(store, bar_history=bar_history)
        self._store = store
        self._sockets = sockets
        self.watch = Watch(
            store, patience, Listener(self._met, self._changed, self._keep, self._said, self._was_deaf)
        )
        self._commit_interval_s = commit_interval_s
        self._max_pending_bytes = max_pending_bytes
        self._publish = publish
        self._alerts = alerts
        self._waiting = _Waiting()
        self._committing_bytes = 0
        self._work = anyio.Event()
        self._hurry = anyio.Event()
        self._room = anyio.Event()
        self._is_deaf = False
        # The one thread that writes.
        self._writing = anyio.CapacityLimiter(1)
        self._file_store = files
        self.files = FileDesk(
            files,
            store,
            tell=sockets.tell,
            publish=publish,
            writing=self._writing,
            max_file_bytes=max_file_bytes,
        )
        self.stacks = StacksDesk(
            store, tell=sockets.tell, publish=publish, writing=self._writing, heard_ns=self.watch.heard_ns
        )
        # Of beats: who is to be told how far it is stored.
        self._answers: list[tuple[bytes, int]] = []
        self._told_versions: set[bytes] = set()
        self._complained_at = float("-inf")

    @property
    def pending_bytes(self) -> int:
        """The bytes of batches that are received and not yet stored."""
        return self._waiting.size + self._committing_bytes

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Runs until it is cancelled; what has been received by then is committed before it returns."""
        lived = await self.watch.find()
        runs = {one.watched.run for one in lived}
        await anyio.to_thread.run_sync(self.ingest.preload, runs, limiter=self._writing)
        async with anyio.create_task_group() as task_group:
            await task_group.start(self.watch.run, lived)
            task_group.start_soon(self._receive)
            task_group.start_soon(self._commit)
            task_group.start_soon(self.files.run)
            task_group.start_soon(self.stacks.run)
            task_status.started()

    async def drain(self) -> None:
        """Commits what has been received: the last step of a shutdown."""
        while self._waiting.batches or self._waiting.notes:
            if not await self._commit_once():
                return

    async def remove_run(self, run: int) -> None:
        """Removes a run and all that is stored of it, between two commits."""

        def remove() -> None:
            self.ingest.forget_run(run)
            remove_run(self._store, self._file_store, run)

        await anyio.to_thread.run_sync(remove, limiter=self._writing)
        self.files.run_went()
        if self._alerts is not None:
            self._alerts.removed(run)
        self.watch.removed(run)

    def keep_event(self, run: int, run_id: str, writer: int | None, kind: str, body: Mapping[str, Any]) -> None:
        """Has an event of a run stored with the next commit, and told then."""
        self._waiting.news.append(("events", run_id, {}))
        self._keep(EventNote(writer, run, time.time_ns(), kind, body))

    def _keep(self, note: Note) -> None:
        self._waiting.notes.append(note)
        self._work.set()

    # -- receiving -------------------------------------------------------------------------------------------------

    async def _receive(self) -> None:
        while True:
            while self.pending_bytes > self._max_pending_bytes:
                # Not draining is what holds the writers back: their queues fill, and their spools keep the rest.
                self._room = anyio.Event()
                self._is_deaf = True
                await self._room.wait()
            for frames in await self._sockets.receive(_GULP_BYTES):
                try:
                    self._take(frames)
                except VersionMismatch as error:
                    self._reject(error)
                    if error.writer is not None and error.writer not in self._told_versions:
                        self._told_versions.add(error.writer)
                        self._sockets.tell(error.writer, Refused(str(error)))
                        if len(self._told_versions) > 10_000:
                            self._told_versions.clear()
                except ProtocolError as error:
                    self._reject(error)
            self._answer()
            # A socket that is never empty must not keep the other tasks from their turn.
            await anyio.lowlevel.checkpoint()

    def _take(self, frames: Sequence[Frame]) -> None:
        message = unpack_up(frames)
        waiting = self._waiting
        if isinstance(message, Batch):
            self.counters.batches += 1
            waiting.batches.append(message)
            waiting.size += len(message.body) + _MESSAGE_BYTES
            if message.is_urgent or waiting.size >= _ENOUGH_BYTES:
                self._hurry.set()
            self._work.set()
            return
        if isinstance(message, Beat):
            self.counters.beats += 1
            self._beat(message)
            return
        self.files.take(message)

    def _beat(self, beat: Beat) -> None:
        position = self.ingest.positions.get(beat.writer)
        if position is None:
            # Met for the first time since the start: the database knows, or nobody.
            if len(self._waiting.asking) < _MAX_ASKING:
                self._waiting.asking.add(beat.writer)
            self._work.set()
        else:
            self._answers.append((beat.writer, position))
        self.watch.beat(beat)

    def _answer(self) -> None:
        """Answers the beats of a gulp in one go: ZeroMQ's thread is woken once for them, and not for each."""
        answers, self._answers = self._answers, []
        for writer, position in answers:
            self._sockets.tell(writer, Ack(position, self._store.instance, time.time_ns()))

    def _reject(self, error: ProtocolError) -> None:
        self.counters.rejected += 1
        now = time.monotonic()
        if now - self._complained_at >= _COMPLAIN_S:
            self._complained_at = now
            logger.warning("dropped a message (%d so far): %s", self.counters.rejected, error)

    # -- committing ------------------------------------------------------------------------------------------------

    async def _commit(self) -> None:
        while True:
            await self._work.wait()
            # Gather more, so that a trickle of many ranks does not become a commit each; but let nobody wait who
            # is about to end.
            with anyio.move_on_after(self._commit_interval_s):
                await self._hurry.wait()
            if not await self._commit_once():
                await anyio.sleep(_RETRY_S)

    async def _commit_once(self) -> bool:
        """Commits what waits; False where the store could not."""
        taken, self._waiting = self._waiting, _Waiting()
        self._work, self._hurry = anyio.Event(), anyio.Event()
        self._committing_bytes = taken.size
        started = time.monotonic()
        try:
            done = await anyio.to_thread.run_sync(
                partial(
                    self.ingest.commit,
                    taken.batches,
                    asking=taken.asking,
                    notes=taken.notes,
                    ended_runs=taken.ended_runs,
                ),
                limiter=self._writing,
            )
        except StoreError as error:
            self._keep_for_later(taken)
            self._complain(error)
            return False
        except BaseException:  # cancelled before it began, or a mistake of ours
            self._keep_for_later(taken)
            raise
        finally:
            self._committing_bytes = 0
            self._room.set()
        if self.problem:
            logger.warning("the store takes events again")
            self.problem = ""
        self.counters.commits += 1
        self.counters.commit_s += time.monotonic() - started
        self._announce(done)
        for topic, run_id, data in taken.news:
            self._publish(topic, run_id, data)
        return True

    def _complain(self, error: StoreError) -> None:
        self.counters.failed_commits += 1
        if str(error) != self.problem:
            logger.error("nothing can be stored, and nothing is acked: %s", error)
        self.problem = str(error)

    def _keep_for_later(self, taken: _Waiting) -> None:
        """After a commit that failed: the writers have the batches still; the notes are only here."""
        waiting = self._waiting
        waiting.notes[:0] = taken.notes
        waiting.ended_runs |= taken.ended_runs
        waiting.news[:0] = taken.news
        waiting.asking |= taken.asking
        self._work.set()

    def _announce(self, done: Committed) -> None:
        for id_, answer in done.answers.items():
            self._sockets.tell(id_, answer)
        self.counters.events += done.events
        self.counters.points += done.points
        for book in done.opened:
            self.watch.opened(book)
            self._publish("ranks", book.run.id, {"rank": book.rank, "state": "running"})
        for writer, step in done.steps.items():
            self.watch.progress(writer, step)
        closed = {book.writer for book, _ in done.closed}
        if closed:
            # What was seen of them while this was stored is older than how they closed.
            waiting = self._waiting
            waiting.notes = [
                note for note in waiting.notes if not (isinstance(note, StateNote) and note.writer in closed)
            ]
        for book, end in done.closed:
            self.watch.closed(book, end)
        self._tell_alerts(done)
        for run_id, step in done.touched.items():
            self._publish("metrics", run_id, {"last_step": step})
        for run_id in done.printed:
            self._publish("logs", run_id, {})
        for run_id in {book.run.id for book in done.opened}:
            self._publish("runs", run_id, {})
            self._publish("events", run_id, {})
        if done.opened:
            self.files.runs_came()
        self.stacks.answered(done.answered)

    def _tell_alerts(self, done: Committed) -> None:
        alerts = self._alerts
        if alerts is None:
            return
        for writer, step in done.steps.items():
            run = self.watch.run_of(writer)
            if run is not None:
                alerts.came(run, writer, step)
        alerts.printed(done.printed)
        for book, time_ns, said in done.alerts:
            alerts.asked(book.run.run, book.writer, book.rank, said, time_ns)
        for bad in done.bad_values:
            book = bad.book
            alerts.value(book.run.run, book.writer, book.rank, bad.key, bad.value, bad.step, bad.time_ns)

    # -- what the watch tells --------------------------------------------------------------------------------------

    def _was_deaf(self) -> bool:
        if not self._is_deaf:
            return False
        self._is_deaf = self.pending_bytes > self._max_pending_bytes
        return True

    def _said(self, watched: Watched, kind: str, body: Mapping[str, Any]) -> None:
        logger.warning("run %s: %s", watched.run_id, body["text"])
        self.keep_event(watched.run, watched.run_id, watched.writer, kind, body)

    def _met(self, watched: Watched) -> None:
        if self._alerts is not None and watched.role == "rank":
            self._alerts.met(watched.run, watched.run_id, watched.writer, watched.attempt)

    def _changed(self, watched: Watched, change: Change, is_new: bool) -> None:
        """Has a change of state stored, where its CLOSE has not brought it along, and told."""
        state, reason = change.state.value, str(change.detail.get("reason") or "")
        news = {"rank": watched.rank, "state": state}
        if is_new:
            self._waiting.notes.append(StateNote(watched.writer, watched.run, time.time_ns(), state, change.detail))
            self._waiting.news.append(("ranks", watched.run_id, news))
            self._hurried()
        else:
            self._publish("ranks", watched.run_id, news)
        logger.info("run %s rank %d (%s): %s %s", watched.run_id, watched.rank, watched.role, state, reason)
        # A process that went well, or of which nobody knows: it may have closed, and that is on its way.
        is_sure = change.sign is not Sign.GONE
        alerts = self._alerts
        if watched.role == "rank" and not self.watch.is_rival(watched.writer):
            self.stacks.changed(watched.run, watched.run_id, change.state)
            if alerts is not None:
                alerts.changed(watched.run, watched.writer, watched.rank, state, reason, is_sure=is_sure)
        if change.state in ENDED and self.watch.has_ended(watched.run):
            if alerts is not None:
                alerts.ended(watched.run, is_sure=is_sure)
            self._waiting.ended_runs.add(watched.run)
            self._waiting.news.append(("runs", watched.run_id, {}))
            self._hurried()

    def _hurried(self) -> None:
        """Has what waits committed at once."""
        self._work.set()
        self._hurry.set()
