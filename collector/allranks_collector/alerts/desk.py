"""The desk: it is told what happens, and sends what is worth it. One task, and one more for each target.

    pipeline ─► rules, limits ─► message ─► queue of each target ─► deliver (a process) ─► event of the run

What it is told costs the pipeline some microseconds. A target that does not answer fills its own queue and delays
nobody.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.abc
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from allranks_collector.alerts.limits import GATHER_S, Limits
from allranks_collector.alerts.rules import RULES, STATES, Facts, Group, Happening, Message, compose
from allranks_collector.alerts.targets import DEADLINE_S, Target, deliver
from allranks_collector.queries.select import RunRef
from allranks_collector.queries.why import why
from allranks_collector.store import Store, StoreError

if TYPE_CHECKING:
    import duckdb

logger = logging.getLogger(__name__)

_MAX_QUEUED = 100
_COMPLAIN_S = 60.0
_LOOK_S = 5.0
# What comes in so long after it was recorded (a spool of yesterday) is history.
_STALE_NS = 3_600_000_000_000
# A run that has ended is remembered for so long: what comes in late must not alert anew.
_REMEMBER_S = 3600.0
_LINE_WITHIN_NS = 600_000_000_000
# A rank of which no more is known than that its process has gone: what it said last may still come from its spool.
_LAST_WORDS_S = 15.0
_NO_DATA = "no-data"

Deliver = Callable[[Target, Message, float, Callable[[], bool]], str]
# (run, its id, writer or None, kind, body): an event to store.
Keep = Callable[[int, str, int | None, str, Mapping[str, Any]], None]


@dataclass
class AlertCounters:
    """What has been sent since the start, per target and message."""

    sent: int = 0
    failed: int = 0
    dropped: int = 0


@dataclass
class _Run:
    """A run that lives, or did a while ago.

    Attributes:
        data_at: when its newest data came; by writer, with which step.
        bad: the writers that are dead or failed, in the order in which they fell.
        met_ns: by writer, when it was met, in wall-clock nanoseconds.
        ended_at: when all its ranks had ended.
    """

    run: int
    id: str
    attempt: int
    data_at: float
    is_quiet: bool = False
    ended_at: float | None = None
    steps: dict[int, int] = field(default_factory=dict[int, int])
    bad: dict[int, Happening] = field(default_factory=dict[int, Happening])
    met_ns: dict[int, int] = field(default_factory=dict[int, int])


@dataclass
class _Letter:
    """A message on its way to its targets."""

    happening: Happening
    message: Message
    missing: int
    answers: dict[str, str] = field(default_factory=dict[str, str])


class AlertDesk:
    """Told by the pipeline what happens; all calls come from the event loop's thread and never wait.

    Args:
        rules: those that are on, beside what programs send themselves.
        interval_s: see `Limits`.
        no_data_s: how long a run may send no data; None for ever.
        page: the address of the dashboard.
        gather_s: see `Limits`.
        send: called in a worker thread; another one in tests.
    """

    def __init__(
        self,
        store: Store,
        targets: Sequence[Target],
        *,
        rules: Iterable[str],
        interval_s: float,
        no_data_s: float | None,
        page: str,
        gather_s: float = GATHER_S,
        send: Deliver = deliver,
    ) -> None:
        self.counters = AlertCounters()
        self.targets = tuple(targets)
        self._store = store
        self._rules = frozenset(rules) | {"user"}
        self._limits = Limits(interval_s, gather_s=gather_s)
        self._no_data_s = no_data_s
        self._page = page
        self._send = send
        self._runs: dict[int, _Run] = {}
        self._by_id: dict[str, _Run] = {}
        self._numbers = itertools.count()
        self._changed = anyio.Event()
        self._queues: list[MemoryObjectSendStream[_Letter]] = []
        self._under_way = 0
        self._is_testing = False
        self._problems: dict[str, str] = {}
        self._complained_at = -math.inf
        self._keep: Keep | None = None

    @property
    def is_busy(self) -> bool:
        """True while something is to be sent or on its way."""
        return bool(self._under_way) or self._limits.is_waiting

    def status(self) -> dict[str, Any]:
        """For `/api/collector`: what was sent, and by target why the newest was not."""
        counters = self.counters
        return {
            "targets": [
                {"name": target.name, "problem": self._problems.get(target.name, "")} for target in self.targets
            ],
            "sent": counters.sent,
            "failed": counters.failed,
            "dropped": counters.dropped,
        }

    # -- what it is told -------------------------------------------------------------------------------------------

    def met(self, run: int, run_id: str, writer: int, attempt: int) -> None:
        """A writer is under watch from now on."""
        found = self._runs.get(run)
        if found is None or found.ended_at is not None or attempt > found.attempt:
            known = {} if found is None else found.met_ns
            found = self._runs[run] = _Run(run, run_id, attempt, time.monotonic(), met_ns=known)
            self._by_id[run_id] = found
            self._changed.set()
        found.met_ns[writer] = time.time_ns()

    def changed(self, run: int, writer: int, rank: int, state: str, reason: str, *, is_sure: bool = True) -> None:
        """A rank's state is another now; where that is not sure, it may be another again in a moment."""
        found = self._runs.get(run)
        if found is None:
            return
        name, what = STATES.get(state, ("", ""))
        happening = Happening(RULES[name], run, writer, what, reason, writer, rank) if name else None
        if happening is not None and happening.rule.family == "down":
            found.bad[writer] = happening
        else:
            found.bad.pop(writer, None)
        if happening is not None and name in self._rules:
            self._bad(happening, is_sure=is_sure)
        elif state == "running":
            self._good(Happening(RULES["unreachable"], run, writer, writer=writer, rank=rank))
        else:
            self._limits.drop(run, writer)
        if found.ended_at is not None and not found.bad:
            self._limits.withdraw(run, "end", found.attempt)

    def ended(self, run: int, *, is_sure: bool = True) -> None:
        """All of a run's ranks have ended."""
        found = self._runs.get(run)
        if found is None:
            return
        found.ended_at = time.monotonic()
        self._limits.drop(run, _NO_DATA)
        name, what = ("run-failed", "has failed") if found.bad else ("run-finished", "has finished")
        if name in self._rules:
            self._bad(Happening(RULES[name], run, found.attempt, what), is_sure=is_sure)

    def came(self, run: int, writer: int, step: int) -> None:
        """Something of a writer has been stored, with its newest step."""
        found = self._runs.get(run)
        if found is not None and found.steps.get(writer) != step:
            found.steps[writer] = step
            self._data(found)

    def printed(self, run_ids: Iterable[str]) -> None:
        """Lines of runs have been stored."""
        for run_id in run_ids:
            if run_id in self._by_id:
                self._data(self._by_id[run_id])

    def _data(self, found: _Run) -> None:
        found.data_at = time.monotonic()
        if found.is_quiet:
            found.is_quiet = False
            self._good(Happening(RULES[_NO_DATA], found.run, _NO_DATA))

    def value(self, run: int, writer: int, rank: int, key: str, value: float, step: int | None, at_ns: int) -> None:
        """The first value of a metric that is not finite."""
        if "nan" not in self._rules or "loss" not in key.lower():
            return
        word = "NaN" if math.isnan(value) else "infinite"
        where = "" if step is None else f" at step {step}"
        what = f"says that {key} is {word}{where}"
        self._bad(Happening(RULES["nan"], run, (writer, key), what, "", writer, rank, at_ns))

    def asked(self, run: int, writer: int, rank: int, alert: Mapping[str, str], at_ns: int) -> None:
        """A program has called `run.alert`."""
        title, text = alert.get("title", ""), alert.get("text", "")
        level = alert.get("level", "INFO")
        subject = next(self._numbers)
        self._bad(Happening(RULES["user"], run, subject, title or text, text, writer, rank, at_ns, level))

    def removed(self, run: int) -> None:
        """A run has been removed."""
        found = self._runs.pop(run, None)
        if found is not None:
            self._by_id.pop(found.id, None)
        self._limits.forget(run)

    def _bad(self, happening: Happening, *, is_sure: bool = True) -> None:
        if happening.at_ns is not None and _is_old(happening.at_ns):
            return
        self._limits.bad(happening, time.monotonic() + (0.0 if is_sure else _LAST_WORDS_S))
        self._changed.set()

    def _good(self, happening: Happening) -> None:
        self._limits.good(happening, time.monotonic())
        self._changed.set()

    # -- sending ---------------------------------------------------------------------------------------------------

    async def run(self, keep: Keep) -> None:
        """Sends until it is cancelled.

        Args:
            keep: stores an event of a run.
        """
        self._keep = keep
        async with anyio.create_task_group() as task_group:
            self._queues = [self._served(task_group, target) for target in self.targets]
            try:
                while True:
                    self._changed = anyio.Event()
                    self._look()
                    for group in list(self._limits.due(time.monotonic())):
                        await self._tell(group)
                    # A clock that was asked a moment too early must not make this a loop without a pause.
                    wait_s = max(0.02, self._limits.next_at() - time.monotonic())
                    if self._runs:
                        wait_s = min(wait_s, _LOOK_S, self._no_data_s or _LOOK_S)
                    with anyio.move_on_after(wait_s):
                        await self._changed.wait()
            finally:
                for queue in self._queues:
                    queue.close()

    async def test(self) -> list[dict[str, Any]] | None:
        """Sends one message to all targets, whatever else is under way; how each answered.

        None where such a test is under way already: whoever asks often must not have a crowd of processes started.
        """
        if self._is_testing:
            return None
        self._is_testing = True
        try:
            return await self._test()
        finally:
            self._is_testing = False

    async def _test(self) -> list[dict[str, Any]]:
        message = Message(
            "", "test", "INFO", "allranks: a test", f"Alerts of this collector arrive here.\n{self._page}"
        )
        answers: dict[str, str] = {}

        async def ask(target: Target) -> None:
            answers[target.name] = await self._deliver(target, message)

        async with anyio.create_task_group() as task_group:
            for target in self.targets:
                task_group.start_soon(ask, target)
        return [{"name": t.name, "sent": not answers[t.name], "problem": answers[t.name]} for t in self.targets]

    def _look(self) -> None:
        """What follows from mere waiting."""
        now = time.monotonic()
        for found in list(self._runs.values()):
            if found.ended_at is not None and now - found.ended_at > _REMEMBER_S:
                self.removed(found.run)
        if self._no_data_s is None or _NO_DATA not in self._rules:
            return
        for found in self._runs.values():
            if not found.is_quiet and found.ended_at is None and now - found.data_at > self._no_data_s:
                found.is_quiet = True
                what = f"has sent no data for {_duration(self._no_data_s)}"
                self._limits.bad(Happening(RULES["no-data"], found.run, _NO_DATA, what), now)

    async def _tell(self, group: Group) -> None:
        """Makes a message of a group, and has it sent."""
        self._under_way += 1
        letter: _Letter | None = None
        try:
            letter = await self._letter(group)
        except StoreError as error:
            logger.warning("an alert is not sent: %s", error)
        except Exception:  # a mistake of ours must not end the collector
            logger.exception("an alert is not sent")
        finally:
            if letter is None:
                self._under_way -= 1
        if letter is None:
            return
        logger.info("alert: %s", letter.message.title)
        for target, queue in zip(self.targets, self._queues, strict=True):
            try:
                queue.send_nowait(letter)
            except anyio.WouldBlock:
                self.counters.dropped += 1
                self._answered(letter, target, f"{_MAX_QUEUED} others wait for it")
        if not self.targets:
            self._store_letter(letter)

    async def _letter(self, group: Group) -> _Letter | None:
        """The letter about a group; None where all of it is history."""
        found = self._runs.get(group.first.run)
        if found is not None and group.first.rule.name == "run-failed":
            # All that fell, whether they have been told or not: the first of them is the one to name.
            group = replace(group, causes=tuple(found.bad.values()))
        read = partial(_read, self._store, group, {} if found is None else dict(found.met_ns))
        group_now, facts = await anyio.to_thread.run_sync(read)
        if group_now is None or facts is None:
            return None
        message = compose(group_now, replace(facts, page=f"{self._page}/runs/{facts.run_id}"))
        return _Letter(group_now.first, message, len(self.targets))

    def _served(self, task_group: anyio.abc.TaskGroup, target: Target) -> MemoryObjectSendStream[_Letter]:
        sender, receiver = anyio.create_memory_object_stream[_Letter](_MAX_QUEUED)
        task_group.start_soon(self._serve, target, receiver)
        return sender

    async def _serve(self, target: Target, letters: MemoryObjectReceiveStream[_Letter]) -> None:
        with letters:
            async for letter in letters:
                self._answered(letter, target, await self._deliver(target, letter.message))

    async def _deliver(self, target: Target, message: Message) -> str:
        """Why the target has not taken it, or nothing."""
        is_given_up = False
        try:
            problem = await anyio.to_thread.run_sync(
                partial(self._send, target, message, DEADLINE_S, lambda: is_given_up),
                limiter=anyio.CapacityLimiter(1),
                abandon_on_cancel=True,
            )
        except Exception as error:  # a mistake of ours must not end the collector
            logger.exception("the alert target %s", target.name)
            problem = f"it could not be asked ({type(error).__name__})"
        finally:
            is_given_up = True
        self._problems[target.name] = problem
        if problem:
            self.counters.failed += 1
            self._complain(target, problem)
        else:
            self.counters.sent += 1
        return problem

    def _complain(self, target: Target, problem: str) -> None:
        now = time.monotonic()
        if now - self._complained_at >= _COMPLAIN_S:
            self._complained_at = now
            logger.warning("alerts: %s: %s (%d failed so far)", target.name, problem, self.counters.failed)

    def _answered(self, letter: _Letter, target: Target, problem: str) -> None:
        letter.answers[target.name] = problem or "sent"
        letter.missing -= 1
        if letter.missing == 0:
            self._store_letter(letter)

    def _store_letter(self, letter: _Letter) -> None:
        self._under_way -= 1
        message = letter.message
        body = {
            "rule": message.rule,
            "level": message.level,
            "title": message.title,
            "text": message.text,
            "targets": letter.answers,
        }
        happening = letter.happening
        if self._keep is not None and happening.run in self._runs:  # else it has been removed meanwhile
            self._keep(happening.run, message.run_id, happening.writer, "alerted", body)


# One row per writer: who it is, how far it came, and its run.
_WRITERS = """
    SELECT writer, host, rank, attempt, last_step, last_ns FROM writers LEFT JOIN positions USING (writer)
    WHERE writer IN (SELECT unnest($writers::INTEGER[]))"""
_LAST_LINE = """
    SELECT text FROM lines WHERE time_ns >= $since AND text <> '' AND writer IN (
        SELECT writer FROM writers WHERE run = $run AND attempt = $attempt AND rank = $rank AND role = 'console')
    ORDER BY time_ns DESC, number DESC LIMIT 1"""


def _read(store: Store, group: Group, met: Mapping[int, int]) -> tuple[Group | None, Facts | None]:
    """The group less what is history, and what is known of its run and its first rank; in a worker thread."""
    with store.cursor() as cursor:
        run = group.first.run
        rows = cursor.execute("SELECT id, name, created_ns FROM runs WHERE run = ?", [run]).fetchall()
        if not rows:
            return None, None
        facts = Facts(rows[0][0], rows[0][1])
        every = [*group.happenings, *group.causes]
        writers = sorted({one.writer for one in every if one.writer is not None})
        known = {row[0]: row for row in cursor.execute(_WRITERS, {"writers": writers}).fetchall()}

        def is_news(one: Happening) -> bool:
            row = known.get(-1 if one.writer is None else one.writer)
            if row is None or row[5] is None or group.is_recovery or not one.rule.lasts:
                return True
            # It was old when it was met: a spool of a run that is over.
            return not (_is_old(row[5]) and not _is_old(met.get(row[0], time.time_ns())))

        happenings = [one for one in group.happenings if is_news(one)]
        causes = [one for one in group.causes if is_news(one)]
        if not happenings or (group.causes and not causes):
            return None, None
        if not group.is_recovery and {one.rule.family for one in causes or happenings} == {"down"}:
            first = _first_failure(cursor, RunRef(run, rows[0][0], rows[0][2]), len(causes or happenings))
            happenings, causes = _led_by(first, happenings), _led_by(first, causes)
        group = replace(group, happenings=happenings, causes=causes)
        row = known.get((causes or happenings)[0].writer or -1)
        if row is None:
            return group, facts
        since = time.time_ns() - _LINE_WITHIN_NS
        asked = {"run": run, "attempt": row[3], "rank": row[2], "since": since}
        lines = cursor.execute(_LAST_LINE, asked).fetchall()
        return group, replace(facts, host=row[1], step=row[4], line=lines[0][0] if lines else "")


def _first_failure(cursor: duckdb.DuckDBPyConnection, run: RunRef, count: int) -> Mapping[str, Any] | None:
    """The rank that failed first, of several: they are seen to fall in another order than that in which they do."""
    if count < 2:
        return None
    try:
        first: Mapping[str, Any] | None = why(cursor, run)["first"]
    except Exception:  # an alert that names another one first is better than none
        logger.exception("why the run %s has failed", run.id)
        return None
    return first


def _led_by(first: Mapping[str, Any] | None, told: list[Happening]) -> list[Happening]:
    """The same happenings, with that of the first failure in front."""
    return sorted(told, key=lambda one: first is None or one.rank != first["rank"])


def _is_old(at_ns: int) -> bool:
    return time.time_ns() - at_ns > _STALE_NS


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
