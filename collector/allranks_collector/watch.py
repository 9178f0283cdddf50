"""The watch over those who write: it drives the ward, and tells each change of state as it is seen.

    beats, steps, CLOSEs ─► ward ─► changes
    pidfds, /proc, time  ─►

The pipeline tells it what comes in. It waits by itself for those processes to end that can be seen from here, and
finds who lived when the collector was last here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread

from allranks_bus.processes import ProcessIdentity, is_alive, standing
from allranks_bus.wire import Beat
from allranks_collector.books import WriterBook
from allranks_collector.claims import TWICE, Claim, Places, claimed_twice
from allranks_collector.clocks import Clocks
from allranks_collector.commits import ClockNote, EventNote, Note
from allranks_collector.health import ENDED, Change, Condition, Sign, State, Ward, sign_of_close
from allranks_collector.liveness import wait_for_exit
from allranks_collector.oom import OomWatch
from allranks_collector.openings import process_of, wrapper_of
from allranks_collector.pace import Patience, said_in
from allranks_collector.queries.claims import claimants, rivals
from allranks_collector.store import Store

_LOOK_S = 0.5
# Who has ended with exit code 0 is called dead only when no CLOSE has come for so long.
_CLOSE_COMES_S = 5.0
# So many writers are remembered that have beaten and not yet opened.
_MAX_COMING = 20_000


@dataclass(frozen=True)
class Watched:
    """A writer under watch, as the service needs to know it."""

    id: bytes
    writer: int
    run: int
    run_id: str
    attempt: int
    rank: int
    role: str
    host: str
    launch: str
    wrapper: tuple[int, int] | None
    world_size: int


@dataclass(frozen=True)
class Lived:
    """A writer that lived when the collector was last here.

    Attributes:
        is_told: it has been said that it shares its rank with another.
        is_rival: that one had it first.
    """

    watched: Watched
    process: ProcessIdentity
    state: State
    is_told: bool
    is_rival: bool


@dataclass(frozen=True)
class Listener:
    """Who is told what is seen; all of it in the event loop's thread, where nothing may wait.

    Attributes:
        met: a writer is under watch from now on.
        changed: its state is another now; True where that is to be stored, for its CLOSE has not brought it along.
        keep: has what was seen beside that stored.
        said: has an event of a writer stored and told, by its kind and body.
        was_deaf: whether the collector had no room to hear anybody since it was last asked.
    """

    met: Callable[[Watched], None]
    changed: Callable[[Watched, Change, bool], None]
    keep: Callable[[Note], None]
    said: Callable[[Watched, str, Mapping[str, Any]], None]
    was_deaf: Callable[[], bool]


class Watch:
    """All writers that are thought to live, and those of which more may be learned."""

    def __init__(self, store: Store, patience: Patience, listener: Listener) -> None:
        self._store = store
        self._listener = listener
        self._ward = Ward(patience)
        self._clocks = Clocks()
        # Of those whose OPEN is still to come: when their first beat arrived, and when it was sent by their clocks.
        self._coming: dict[bytes, tuple[int, int]] = {}
        self._ooms = OomWatch()
        self._places = Places()
        self._rivals: set[int] = set()
        self._watched: dict[int, Watched] = {}
        self._by_id: dict[bytes, Watched] = {}
        # The processes that can be seen from here.
        self._in_sight: dict[int, ProcessIdentity] = {}
        # Writers of this host, by its name, from before it was started again.
        self._of_boots_before: set[int] = set()
        # Their processes have ended well, and nobody has said why.
        self._leaving: set[int] = set()
        self._task_group: anyio.abc.TaskGroup | None = None

    @property
    def live_writers(self) -> int:
        """How many writers are thought to live."""
        return sum(self._ward.state(writer) not in ENDED for writer in self._watched)

    def heard_ns(self, writer: int) -> int | None:
        """When a writer was last heard, in wall-clock nanoseconds; None where it is not watched."""
        return self._ward.heard_ns(writer)

    def is_watched(self, name: bytes) -> bool:
        """True while the writer of this name is thought to live."""
        watched = self._by_id.get(name)
        if watched is None or watched.writer in self._leaving:
            return False
        return self._ward.state(watched.writer) not in ENDED

    def run_of(self, writer: int) -> int | None:
        """The run of a writer under watch, by number."""
        watched = self._watched.get(writer)
        return None if watched is None else watched.run

    def is_rival(self, writer: int) -> bool:
        """True for a writer that claims a rank which another one had first: what becomes of it is not the rank's."""
        return writer in self._rivals

    def has_ended(self, run: int) -> bool:
        """True where nobody of a run is thought to live."""
        return all(
            self._ward.state(watched.writer) in ENDED for watched in self._watched.values() if watched.run == run
        )

    # -- what it does by itself ------------------------------------------------------------------------------------

    async def find(self) -> list[Lived]:
        """The writers that lived when the collector was last here, or were given up only for want of a sign."""

        def read() -> tuple[list[tuple[Any, ...]], set[int], set[int]]:
            with self._store.cursor() as cursor:
                rows = cursor.execute(
                    "SELECT w.id, w.writer, w.run, r.id, w.attempt, w.rank, w.role, w.host, w.identity,"
                    " coalesce(s.state, 'running') AS state FROM writers w JOIN runs r USING (run) LEFT JOIN"
                    " (SELECT writer, arg_max(state, rowid) AS state, arg_max(detail, rowid) AS detail FROM states"
                    " GROUP BY writer) s USING (writer) WHERE w.role <> 'console'"
                    " AND (coalesce(s.state, 'running') IN ('running', 'stalled', 'unreachable')"
                    " OR (s.state = 'dead' AND (s.detail->>'lost') = 'true')) ORDER BY w.writer"
                ).fetchall()
                runs = {row[2] for row in rows}
                return rows, claimants(cursor, runs), rivals(cursor, runs)

        rows, told, known_rivals = await anyio.to_thread.run_sync(read)
        return [
            Lived(
                Watched(
                    *(bytes.fromhex(id_), writer, run, run_id, attempt, rank, role, host),
                    launch=str(identity["launch"]),
                    wrapper=wrapper_of(identity),
                    world_size=int(identity["world_size"]),
                ),
                process_of(identity),
                State(state),
                writer in told,
                writer in known_rivals,
            )
            for id_, writer, run, run_id, attempt, rank, role, host, text, state in rows
            for identity in [json.loads(text)]
        ]

    async def run(
        self, lived: Iterable[Lived], *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Watches until it is cancelled; first those that lived before."""
        async with anyio.create_task_group() as task_group:
            self._task_group = task_group
            try:
                for one in lived:
                    self._admit(one.watched, one.process, one.state, is_told=one.is_told)
                    if one.is_rival:
                        self._rivals.add(one.watched.writer)
                task_status.started()
                await self._look()
            finally:
                self._task_group = None

    async def _look(self) -> None:
        looked_at = time.monotonic()
        while True:
            await anyio.sleep(_LOOK_S)
            now = time.monotonic()
            late_s = now - looked_at - _LOOK_S
            if self._listener.was_deaf() or late_s > _LOOK_S:
                # This process stood still, or had no room to receive: nobody was silent but itself.
                self._ward.excuse(now - looked_at)
            looked_at = now
            self._tell(self._ward.look(now, self._condition))
            for claim, body in claimed_twice(self._places.look(self._alive_ns)):
                self._rivals.update(body["rivals"])
                self._listener.said(self._watched[claim.writer], TWICE, body)

    def _alive_ns(self, writer: int) -> int | None:
        """When a writer was last heard that is thought to live."""
        return None if self._ward.state(writer) in ENDED else self._ward.heard_ns(writer)

    def _condition(self, writer: int) -> Condition | None:
        if writer in self._of_boots_before:
            return Condition("X")
        process = self._in_sight.get(writer)
        found = None if process is None else standing(process.pid, process.start)
        return None if found is None else Condition(*found)

    async def _await_exit(self, watched: Watched, process: ProcessIdentity) -> None:
        is_seen = is_alive(process.pid, process.start)
        end = await wait_for_exit(process)
        detail: dict[str, Any] = {"exit_code": end.code, "signal": end.signal}
        reason = f"killed by {end.signal}" if end.signal else None
        if end.code is not None:
            reason = f"exited with code {end.code}"
        detail["reason"] = reason or "its process is gone"
        if end.signal == "SIGKILL" and (killed := self._ooms.look(watched.writer)):
            detail["oom_kills"] = killed
        if not is_seen:  # it may have been long ago
            detail["unseen"] = True
        if end.code == 0:
            # It went well: its CLOSE is on its way, or lies in its spool, which may be drained from now on.
            self._leaving.add(watched.writer)
            await anyio.sleep(_CLOSE_COMES_S)
            self._leaving.discard(watched.writer)
        sign = Sign.GONE_BADLY if end.is_bad else Sign.GONE
        self._tell(self._ward.see(watched.writer, sign, detail))
        # A CLOSE may still lie in its spool: it stays under watch until that is drained, or for ever as it is.
        if self._ward.state(watched.writer) in (State.FINISHED, State.FAILED):
            self._discharge(watched)

    # -- what it is told -------------------------------------------------------------------------------------------

    def opened(self, book: WriterBook) -> None:
        """A writer has come."""
        self._admit(_watched(book), book.process, State.RUNNING)
        first = self._coming.pop(book.id, None)
        if first is not None:
            self._time(book.writer, *first)

    def beat(self, beat: Beat) -> None:
        """A beat has come in; who is not watched is not met by that."""
        watched = self._by_id.get(beat.writer)
        if beat.status.get("drained") is True:
            return
        if watched is None:
            # It asks where to begin, and may have ended before its next one.
            if len(self._coming) >= _MAX_COMING:
                self._coming.clear()
            self._coming.setdefault(beat.writer, (time.time_ns(), beat.sent_ns))
            return
        step = beat.status.get("step")
        known = step if type(step) is int and step >= 0 else None
        self._observe(watched, beat)
        said = said_in(beat.status)
        self._tell(self._ward.hear(watched.writer, known, time.monotonic(), time.time_ns(), said))

    def _observe(self, watched: Watched, beat: Beat) -> None:
        """What a beat tells beside that the writer lives: how its clock goes, and kills for want of memory."""
        now_ns = time.time_ns()
        self._time(watched.writer, now_ns, beat.sent_ns)
        killed = self._ooms.hear(watched.writer, beat.status.get("oom"))
        if killed:
            self._listener.keep(EventNote(watched.writer, watched.run, now_ns, "oom", {"killed": killed}))

    def _time(self, writer: int, arrived_ns: int, sent_ns: int) -> None:
        offset_ns = self._clocks.see(writer, arrived_ns, sent_ns)
        if offset_ns is not None:
            self._listener.keep(ClockNote(writer, offset_ns))

    def progress(self, writer: int, step: int) -> None:
        """A step of a writer has been stored."""
        self._tell(self._ward.progress(writer, step, time.monotonic()))

    def closed(self, book: WriterBook, end: Mapping[str, Any]) -> None:
        """A writer's CLOSE has been stored, with what follows from that alone."""
        watched = self._watched.get(book.writer)
        if watched is None:  # it had ended before this collector started
            watched = _watched(book)
            self._admit(watched, book.process, State.DEAD)
        sign, detail = sign_of_close(end)
        for change in self._ward.see(book.writer, sign, detail):
            # How its process ended outweighs the CLOSE, with which nobody stored that.
            self._listener.changed(watched, change, change.sign is not sign)
        if sign is Sign.CLOSED_BADLY or not book.process.is_visible:
            self._discharge(watched)

    def removed(self, run: int) -> None:
        """A run has been removed."""
        for watched in [watched for watched in self._watched.values() if watched.run == run]:
            self._discharge(watched)

    # -- the list --------------------------------------------------------------------------------------------------

    def _admit(self, watched: Watched, process: ProcessIdentity, state: State, *, is_told: bool = False) -> None:
        if watched.writer in self._watched:
            return
        if watched.role == "rank":
            claim = Claim(
                *(watched.writer, watched.run, watched.rank, watched.launch, watched.host, process.pid),
                process=(watched.host, process),
                own=(process.pid, process.start),
                wrapper=watched.wrapper,
                world_size=watched.world_size,
                since_ns=time.time_ns(),
            )
            self._places.come(claim, is_told=is_told)
        self._watched[watched.writer] = self._by_id[watched.id] = watched
        self._listener.met(watched)
        group = watched.run if watched.role == "rank" else None
        self._ward.admit(watched.writer, state, time.monotonic(), time.time_ns(), group)
        if process.is_visible:
            self._in_sight[watched.writer] = process
        elif process.is_of_boot_before(watched.host):
            self._of_boots_before.add(watched.writer)
        if process.is_visible and self._task_group is not None:
            self._ooms.watch(watched.writer, process.pid)
            self._task_group.start_soon(self._await_exit, watched, process)

    def _discharge(self, watched: Watched) -> None:
        self._ward.discharge(watched.writer)
        self._in_sight.pop(watched.writer, None)
        self._of_boots_before.discard(watched.writer)
        self._places.leave(watched.run, watched.rank, watched.writer)
        self._clocks.forget(watched.writer)
        self._ooms.forget(watched.writer)
        self._rivals.discard(watched.writer)
        self._watched.pop(watched.writer, None)
        self._by_id.pop(watched.id, None)

    def _tell(self, changes: Iterable[Change]) -> None:
        for change in changes:
            self._listener.changed(self._watched[change.writer], change, True)


def _watched(book: WriterBook) -> Watched:
    run = book.run
    return Watched(
        *(book.id, book.writer, run.run, run.id, book.attempt, book.rank, book.role, book.host),
        launch=book.launch,
        wrapper=book.wrapper,
        world_size=book.world_size,
    )
