"""The desk: it is told what happens, and has what is worth it sent.

    pipeline ─► rules, limits ─► message (facts) ─► dispatch ─► event of the run

What it is told costs the pipeline some microseconds. A collector that starts again reads from the events what was
told before (memory).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from allranks_collector.alerts.dispatch import WAITS_S, Deliver, Dispatch, Letter, Outcome
from allranks_collector.alerts.facts import is_old, read_facts
from allranks_collector.alerts.limits import GATHER_S, Limits
from allranks_collector.alerts.memory import RunBefore, read_before, told_by, words_of
from allranks_collector.alerts.rules import RULES, STATES, Group, Happening, Message, compose
from allranks_collector.alerts.targets import Target, deliver
from allranks_collector.health import ENDED, State
from allranks_collector.store import Store, StoreError

logger = logging.getLogger(__name__)

_LOOK_S = 5.0
# A run that has ended is remembered for so long: what comes in late must not alert anew.
_REMEMBER_S = 3600.0
# A rank of which no more is known than that its process has gone: what it said last may still come from its spool.
_LAST_WORDS_S = 15.0
_NO_DATA = "no-data"

# (run, its id, writer or None, kind, body): an event to store.
Keep = Callable[[int, str, int | None, str, Mapping[str, Any]], None]


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


class AlertDesk:
    """Told by the pipeline what happens; all calls come from the event loop's thread and never wait.

    Args:
        rules: those that are on, beside what programs send themselves.
        interval_s: see `Limits`.
        no_data_s: how long a run may send no data; None for ever.
        page: the address of the dashboard.
        gather_s: see `Limits`.
        send, waits_s: see `Dispatch`.
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
        waits_s: Sequence[float] = WAITS_S,
    ) -> None:
        self.dispatch = Dispatch(targets, answered=self._answered, settled=self._settled, send=send, waits_s=waits_s)
        self._store = store
        self._rules = frozenset(rules) | {"user"}
        self._limits = Limits(interval_s, gather_s=gather_s)
        self._no_data_s = no_data_s
        self._page = page
        self._runs: dict[int, _Run] = {}
        self._by_id: dict[str, _Run] = {}
        self._changed = anyio.Event()
        self._is_writing = False
        self._keep: Keep | None = None

    @property
    def is_busy(self) -> bool:
        """True while something is to be sent or on its way."""
        return self._is_writing or self.dispatch.is_busy or self._limits.is_waiting

    # -- what it is told -------------------------------------------------------------------------------------------

    def met(self, run: int, run_id: str, writer: int, attempt: int) -> None:
        """A writer is under watch from now on."""
        found = self._runs.get(run)
        if found is None or found.ended_at is not None or attempt > found.attempt:
            known = {} if found is None else found.met_ns
            # More may come in of one that has ended, from a spool: who fell is known still.
            bad = found.bad if found is not None and attempt <= found.attempt else {}
            found = self._runs[run] = _Run(run, run_id, attempt, time.monotonic(), met_ns=known, bad=bad)
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
        subject = words_of(alert)
        self._bad(Happening(RULES["user"], run, subject, title or text, text, writer, rank, at_ns, level))

    def removed(self, run: int) -> None:
        """A run has been removed."""
        found = self._runs.pop(run, None)
        if found is not None:
            self._by_id.pop(found.id, None)
        self._limits.forget(run)

    def _bad(self, happening: Happening, *, is_sure: bool = True) -> None:
        if happening.at_ns is not None and is_old(happening.at_ns):
            return
        self._limits.bad(happening, time.monotonic() + (0.0 if is_sure else _LAST_WORDS_S))
        self._changed.set()

    def _good(self, happening: Happening) -> None:
        self._limits.good(happening, time.monotonic())
        self._changed.set()

    # -- what it remembers -----------------------------------------------------------------------------------------

    async def resume(self) -> None:
        """Reads what was told before this collector started; to be called before it is told anything."""
        now_ns, now = time.time_ns(), time.monotonic()
        try:
            found = await anyio.to_thread.run_sync(read_before, self._store, now_ns)
        except StoreError as error:
            logger.warning("what was told before is not known: %s", error)
            return
        for before in found:
            for told in before.told:
                at = now - (now_ns - told.at_ns) / 1e9
                self._limits.restore(before.run, told.told, at, is_recovery=told.is_recovery)
            self._restore(before, now)
            for asked in before.asked:
                self.asked(before.run, asked.writer, asked.rank, asked.alert, asked.at_ns)

    def _restore(self, before: RunBefore, now: float) -> None:
        """Goes on with a run: what has changed while nobody could tell it is told, unless it is history."""
        run = before.run
        found = self._runs[run] = _Run(run, before.id, before.attempt, now)
        self._by_id[before.id] = found
        found.is_quiet = self._limits.is_told(run, _NO_DATA, _NO_DATA)
        is_news = False
        for rank in before.ranks:
            name, what = STATES.get(rank.state, ("", ""))
            if not name:
                self.changed(run, rank.writer, rank.rank, rank.state, "")
                continue
            happening = Happening(RULES[name], run, rank.writer, what, rank.reason, rank.writer, rank.rank)
            if happening.rule.family == "down":
                found.bad[rank.writer] = happening
            if not is_old(rank.since_ns) and not is_old(rank.last_ns):
                is_news = True
                if name in self._rules:
                    self._bad(happening, is_sure=rank.state != State.DEAD)
        if all(State(rank.state) in ENDED for rank in before.ranks):
            found.ended_at = now
            if is_news:
                self.ended(run, is_sure=False)

    # -- sending ---------------------------------------------------------------------------------------------------

    async def run(self, keep: Keep) -> None:
        """Sends until it is cancelled.

        Args:
            keep: stores an event of a run.
        """
        self._keep = keep
        async with anyio.create_task_group() as task_group:
            await task_group.start(self.dispatch.run)
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

    async def test(self) -> list[dict[str, Any]] | None:
        """See `Dispatch.test`."""
        text = f"Alerts of this collector arrive here.\n{self._page}"
        return await self.dispatch.test(Message("", "test", "INFO", "allranks: a test", text))

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
        self._is_writing = True
        try:
            letter = await self._letter(group)
        except StoreError as error:
            logger.warning("an alert is not sent: %s", error)
            return
        except Exception:  # a mistake of ours must not end the collector
            logger.exception("an alert is not sent")
            return
        finally:
            self._is_writing = False
        if letter is not None:
            logger.info("alert: %s", letter.message.title)
            self.dispatch.post(letter)

    async def _letter(self, group: Group) -> Letter | None:
        """The letter about a group; None where all of it is history."""
        told = told_by(group)
        found = self._runs.get(group.first.run)
        if found is not None and group.first.rule.name == "run-failed":
            # All that fell, whether they have been told or not: the first of them is the one to name.
            group = replace(group, causes=tuple(found.bad.values()))
        read = partial(read_facts, self._store, group, {} if found is None else dict(found.met_ns))
        group_now, facts = await anyio.to_thread.run_sync(read)
        if group_now is None or facts is None:
            return None
        message = compose(group_now, replace(facts, page=f"{self._page}/runs/{facts.run_id}"))
        return Letter(group_now.first, message, told)

    def _answered(self, letter: Letter) -> None:
        message = letter.message
        body = {
            "rule": message.rule,
            "level": message.level,
            "title": message.title,
            "text": message.text,
            "targets": letter.answers,
            "told": letter.told,
        }
        self._store_event(letter, "alerted", body)

    def _settled(self, outcome: Outcome) -> None:
        kind = "alert-lost" if outcome.problem else "alert-late"
        body = {
            "target": outcome.target,
            "tries": outcome.tries,
            "problem": outcome.problem,
            "title": outcome.letter.message.title,
        }
        self._store_event(outcome.letter, kind, body)

    def _store_event(self, letter: Letter, kind: str, body: Mapping[str, Any]) -> None:
        happening = letter.happening
        if self._keep is not None and happening.run in self._runs:  # else it has been removed meanwhile
            self._keep(happening.run, letter.message.run_id, happening.writer, kind, body)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
