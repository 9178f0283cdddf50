"""The desk that asks the ranks of a run where they stand: by hand, and by itself once when most of them stand still.

    command to all ─► answers come in with their commits ─► who is silent: by a signal ─► stored, told

Each asking has a token, 32 hex digits that begin with the time: the largest is the newest.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread

from allranks_bus.processes import ProcessIdentity
from allranks_bus.wire import Command
from allranks_collector.health import ENDED, State
from allranks_collector.openings import process_of
from allranks_collector.stack_signals import NoStacks, signalled_stacks
from allranks_collector.store import Store, StoreError

logger = logging.getLogger(__name__)

# A rank hears every 0.7 s, and its answer is stored within some tenths of a second: who is silent for so long cannot
# speak, and has not beaten either.
ANSWER_S = 1.5
# Who beats can speak: so much longer is waited for its answer, where there is little processor for it. It beats again
# meanwhile, unless something has come to hold it.
_LATE_S = 3.0
# Ranks that stand still are found one after the other.
_GATHER_S = 1.0
_NOT_AGAIN_S = 60.0
_SIGNALS_AT_ONCE = 16
_MAX_RUNS = 10_000

_STILL = (State.STALLED, State.UNREACHABLE)

_RANKS = """
    WITH mine AS (
        SELECT * FROM writers WHERE run = $run AND role = 'rank'
            AND attempt = (SELECT max(attempt) FROM writers WHERE run = $run)
        QUALIFY row_number() OVER (PARTITION BY rank ORDER BY writer DESC) = 1)
    SELECT writer, id, rank, identity, coalesce(s.state, 'running')
    FROM mine LEFT JOIN (SELECT writer, arg_max(state, rowid) AS state FROM states
        WHERE writer IN (SELECT writer FROM mine) GROUP BY writer) s USING (writer)"""
_INSERT = "INSERT INTO stacks VALUES (?, ?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True)
class _Rank:
    writer: int
    id: bytes
    rank: int
    process: ProcessIdentity
    state: State


@dataclass
class _Asking:
    token: str
    began_ns: int
    silent: set[int]
    all_told: anyio.Event = field(default_factory=anyio.Event)
    done: anyio.Event = field(default_factory=anyio.Event)


class StacksDesk:
    """Asks, waits, and stores what nobody else does.

    Args:
        tell: sends a message to a writer.
        publish: told `(topic, run id, data)` of what has changed.
        writing: the limiter of the one thread that writes.
        heard_ns: when a writer last beat, in wall-clock nanoseconds, where that is known.
    """

    def __init__(
        self,
        store: Store,
        *,
        tell: Callable[[bytes, Command], None],
        publish: Callable[[str, str, Mapping[str, Any]], None],
        writing: anyio.CapacityLimiter,
        heard_ns: Callable[[int], int | None],
    ) -> None:
        self._store = store
        self._tell = tell
        self._publish = publish
        self._writing = writing
        self._heard_ns = heard_ns
        self._signalling = anyio.CapacityLimiter(_SIGNALS_AT_ONCE)
        self._askings: dict[int, _Asking] = {}
        # By run, when (monotonic) it was asked because it stood still; and the runs that have been since they moved.
        self._asked_at: dict[int, float] = {}
        self._asked: set[int] = set()
        # Those that are looked at just now; and of them, where another rank has come to stand since.
        self._looked_at: set[int] = set()
        self._again: set[int] = set()
        self._task_group: anyio.abc.TaskGroup | None = None

    async def run(self) -> None:
        """Takes `changed` until it is cancelled."""
        async with anyio.create_task_group() as task_group:
            self._task_group = task_group
            try:
                await anyio.sleep_forever()
            finally:
                self._task_group = None

    def answered(self, answers: Iterable[tuple[int, str]]) -> None:
        """Takes note of writers whose answers are stored, with the token that they named."""
        for writer, token in answers:
            for asking in self._askings.values():
                if asking.token == token:
                    asking.silent.discard(writer)
                    if not asking.silent:
                        asking.all_told.set()

    def changed(self, run: int, run_id: str, state: State) -> None:
        """Takes in that a rank of a run is in another state now: it may be the last one that stood still."""
        if state not in _STILL:
            self._asked.discard(run)
        elif run in self._looked_at:
            self._again.add(run)
        elif run not in self._asked and self._task_group is not None:
            self._looked_at.add(run)
            self._task_group.start_soon(self._ask_when_most_stand, run, run_id)

    async def ask(self, run: int, run_id: str, ranks: Collection[int] | None = None) -> str | None:
        """Asks the ranks of the run's newest attempt; returns the token once all is stored that can be had.

        Who asks while this run is being asked gets that answer. None where no rank of these lives.
        """
        return await self._ask(run, run_id, await self._ranks_of(run), ranks)

    async def _ask(self, run: int, run_id: str, all_ranks: list[_Rank], ranks: Collection[int] | None) -> str | None:
        wanted = [rank for rank in all_ranks if ranks is None or rank.rank in ranks]
        living = {rank.writer: rank for rank in wanted if rank.state not in ENDED}
        if not living:
            return None
        other = self._askings.get(run)
        if other is not None:
            await other.done.wait()
            return other.token
        began_ns = time.time_ns()
        token = f"{began_ns:016x}{os.urandom(8).hex()}"
        asking = self._askings[run] = _Asking(token, began_ns, set(living))
        try:
            for rank in living.values():
                self._tell(rank.id, Command("stacks", {"token": token}))
            with anyio.move_on_after(ANSWER_S):
                await asking.all_told.wait()
            rows = [
                self._row(run, rank, token, "none", {"reason": rank.state.value})
                for rank in wanted
                if rank.state in ENDED
            ]
            async with anyio.create_task_group() as signals:
                for writer in list(asking.silent):
                    signals.start_soon(self._insist, run, living[writer], asking, rows)
            await self._keep(rows)
            self._publish("stacks", run_id, {"token": token})
        finally:
            del self._askings[run]
            asking.done.set()
        return token

    async def _insist(self, run: int, rank: _Rank, asking: _Asking, rows: list[tuple[Any, ...]]) -> None:
        """What there is of a rank that has not answered."""
        token = asking.token
        heard_ns = self._heard_ns(rank.writer) or 0
        if heard_ns > asking.began_ns:
            # No signal: while its threads run, nobody may look at their frames from outside.
            with anyio.move_on_after(_LATE_S):
                await asking.all_told.wait()
            if rank.writer not in asking.silent:
                return
            if (self._heard_ns(rank.writer) or 0) > heard_ns:
                reason = "it lives, and does not answer"
                rows.append(self._row(run, rank, token, "none", {"reason": reason}))
                return
        async with self._signalling:
            try:
                answer: dict[str, Any] = {"threads": await signalled_stacks(rank.process)}
                how = "signal"
            except NoStacks as error:
                how, answer = "none", {"reason": str(error)}
            rows.append(self._row(run, rank, token, how, answer))

    @staticmethod
    def _row(run: int, rank: _Rank, token: str, how: str, answer: Mapping[str, Any]) -> tuple[Any, ...]:
        return (run, rank.writer, rank.rank, token, time.time_ns(), how, json.dumps(answer))

    async def _keep(self, rows: list[tuple[Any, ...]]) -> None:
        def keep() -> None:
            with self._store.transaction() as connection:
                connection.executemany(_INSERT, rows)

        if rows:
            try:
                await anyio.to_thread.run_sync(keep, limiter=self._writing)
            except StoreError as error:
                logger.warning("stacks of %d ranks could not be stored: %s", len(rows), error)

    async def _ranks_of(self, run: int) -> list[_Rank]:
        def read() -> list[tuple[Any, ...]]:
            with self._store.cursor() as cursor:
                return cursor.execute(_RANKS, {"run": run}).fetchall()

        return [
            _Rank(writer, bytes.fromhex(id_), rank, process_of(json.loads(identity)), State(state))
            for writer, id_, rank, identity, state in await anyio.to_thread.run_sync(read)
        ]

    async def _ask_when_most_stand(self, run: int, run_id: str) -> None:
        try:
            while True:
                self._again.discard(run)
                await anyio.sleep(_GATHER_S)
                ranks = await self._ranks_of(run)
                living = [rank for rank in ranks if rank.state not in ENDED]
                if 2 * sum(rank.state in _STILL for rank in living) <= len(living):
                    if run in self._again:
                        continue
                    return  # the next one that stands still may be the one too many
                wait_s = self._asked_at.get(run, float("-inf")) + _NOT_AGAIN_S - time.monotonic()
                if wait_s > 0:
                    await anyio.sleep(wait_s)  # it stood still a moment ago too: whether it stays so is to be seen
                    continue
                if len(self._asked_at) >= _MAX_RUNS:
                    self._asked_at.clear()
                self._asked_at[run] = time.monotonic()
                self._asked.add(run)
                await self._ask(run, run_id, ranks, None)
                if run in self._asked or run not in self._again:
                    return
        except Exception:
            logger.exception("the stacks of run %s could not be asked for", run_id)
        finally:
            self._looked_at.discard(run)
