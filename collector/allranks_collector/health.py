"""The health of ranks: two clocks, one table.

**Liveness** asks whether the process is there: its pid where the collector can see it, else its beats. **Progress**
asks whether its step moves. Neither alone is the truth: a thread beats on while the main thread hangs, and is silent
while C code holds the interpreter. Where the process can be seen, silence is no sign by itself: a look at it tells
one that is stopped, or held by a debugger, from one that computes. Pure: times are passed in, changes are returned.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from allranks_collector.pace import Pace, Patience, Said


class State(str, Enum):
    """What a rank can be."""

    EXPECTED = "expected"
    RUNNING = "running"
    STALLED = "stalled"
    UNREACHABLE = "unreachable"
    DEAD = "dead"
    FAILED = "failed"
    FINISHED = "finished"


class Sign(Enum):
    """What can be seen of a rank."""

    BEAT = "it beats"
    STEP = "its step moves"
    QUIET = "it beats, and its step does not move"
    SILENT = "no beat has come for too long"
    LOST = "no beat has come for so long that it is given up"
    HELD = "no beat has come for too long, and its process is there: stopped, traced, or held by C code"
    FREED = "it was held, and beats again"
    GONE = "its process is gone"
    GONE_BADLY = "its process is gone, with a signal or an exit code other than 0"
    CLOSED = "it closed, with exit code 0 or none"
    CLOSED_BADLY = "it closed with an exception or another exit code"


_R, _S, _U, _D = State.RUNNING, State.STALLED, State.UNREACHABLE, State.DEAD
_OK, _BAD = State.FINISHED, State.FAILED

# From each state, what each sign makes of it; what is not there changes nothing. A dead rank's events still come
# in, from its spool: only a beat can prove that it lives, and a CLOSE that it ended well.
TRANSITIONS: Mapping[State, Mapping[Sign, State]] = {
    _R: {
        Sign.QUIET: _S,
        Sign.HELD: _S,
        Sign.SILENT: _U,
        Sign.GONE: _D,
        Sign.GONE_BADLY: _D,
        Sign.CLOSED: _OK,
        Sign.CLOSED_BADLY: _BAD,
    },
    _S: {
        Sign.STEP: _R,
        Sign.FREED: _R,
        Sign.SILENT: _U,
        Sign.GONE: _D,
        Sign.GONE_BADLY: _D,
        Sign.CLOSED: _OK,
        Sign.CLOSED_BADLY: _BAD,
    },
    _U: {
        Sign.BEAT: _R,
        Sign.LOST: _D,
        Sign.GONE: _D,
        Sign.GONE_BADLY: _D,
        Sign.CLOSED: _OK,
        Sign.CLOSED_BADLY: _BAD,
    },
    _D: {Sign.BEAT: _R, Sign.CLOSED: _OK, Sign.CLOSED_BADLY: _BAD},
    # A program that ends through sys.exit(3) closes without knowing its code; its process tells.
    _OK: {Sign.GONE_BADLY: _BAD},
    _BAD: {},
}
# Beats and steps are thousands a second, and change hardly ever anything.
_TOLD_BY_BEAT, _TOLD_BY_STEP = (
    tuple(state for state, row in TRANSITIONS.items() if sign in row) for sign in (Sign.BEAT, Sign.STEP)
)


def sign_of_close(end: Mapping[str, Any]) -> tuple[Sign, dict[str, Any]]:
    """What the map of a CLOSE record says of the writer's end: a sign, and the detail to store with it."""
    exit_code, exception = end.get("exit_code"), end.get("exception")
    detail: dict[str, Any] = {"exit_code": exit_code}
    if isinstance(exception, Mapping) and exception:
        reason = ": ".join(filter(None, (str(exception.get("type")), str(exception.get("message") or ""))))[:500]
        return Sign.CLOSED_BADLY, {**detail, "exception": exception, "reason": reason}
    if type(exit_code) is int and exit_code < 0:  # as subprocess has it: a wrapper tells of its command
        name = _signal_name(-exit_code)
        return Sign.CLOSED_BADLY, {"exit_code": None, "signal": name, "reason": f"killed by {name}"}
    if exit_code not in (0, None):
        return Sign.CLOSED_BADLY, {**detail, "reason": f"exited with code {exit_code}"}
    return Sign.CLOSED, detail


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


ENDED = frozenset({State.DEAD, State.FAILED, State.FINISHED})


def run_state(states: Iterable[str]) -> str:
    """The state of a run, from those of its newest attempt's ranks.

    Running while any rank lives; otherwise what its worst rank is. A run of which nobody has come is `expected`.
    """
    found = set(states)
    if found & {State.RUNNING, State.STALLED}:
        # All ranks of a synchronous training stand still together: then the run does.
        return "running" if State.RUNNING in found else "stalled"
    for state in (State.UNREACHABLE, State.FAILED, State.DEAD, State.FINISHED):
        if state in found:
            return str(state.value)
    return "expected"


@dataclass(frozen=True)
class Condition:
    """How a process that can be seen stands, as its kernel says.

    Attributes:
        state: the letter of proc(5): R, S, D, T, t …; X where its host has been started again since.
        tracer: the pid of its debugger; 0 where it has none.
    """

    state: str
    tracer: int = 0


def _cannot_see(writer: int) -> Condition | None:  # noqa: ARG001
    return None


# After such a part of the shortest patience in one section, a rank may be what the others wait for; and they may wait
# for several in a row.
_OTHERS_WAIT_SHARE = 0.3
_OTHERS_FACTOR = 2.0


@dataclass
class Patient:
    """One writer under watch."""

    writer: int
    state: State
    heard_at: float
    heard_ns: int
    pace: Pace = field(default_factory=Pace)
    # How its process ended, where that was bad: a CLOSE without an exit code may come in later.
    bad_end: Mapping[str, Any] | None = None
    # It said itself that it ended well: what becomes of its process (one of a pool, a notebook's) tells nothing.
    is_settled: bool = False
    # Those that train together have one: they may wait for each other.
    group: int | None = None
    # It was silent while its process was there; its next beat tells that it is free again.
    is_held: bool = False


@dataclass(frozen=True)
class Change:
    """A writer's state has changed, for what the sign and `detail` say."""

    writer: int
    state: State
    sign: Sign
    detail: Mapping[str, Any]


class Ward:
    """All writers under watch, by number."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._patients: dict[int, Patient] = {}

    def __len__(self) -> int:
        return len(self._patients)

    def __contains__(self, writer: int) -> bool:
        return writer in self._patients

    def admit(self, writer: int, state: State, now: float, now_ns: int, group: int | None = None) -> None:
        """Begins to watch a writer; it has a full patience from now on, whatever was before.

        Args:
            group: the same for ranks that train together.
        """
        self._patients.setdefault(writer, Patient(writer, state, now, now_ns, Pace(moved_at=now), group=group))

    def discharge(self, writer: int) -> None:
        """Watches a writer no longer."""
        self._patients.pop(writer, None)

    def state(self, writer: int) -> State | None:
        """The state of a writer under watch."""
        patient = self._patients.get(writer)
        return None if patient is None else patient.state

    def heard_ns(self, writer: int) -> int | None:
        """When the writer was last heard, in wall-clock nanoseconds."""
        patient = self._patients.get(writer)
        return None if patient is None else patient.heard_ns

    def hear(
        self, writer: int, step: int | None, now: float, now_ns: int, said: Said | None = None
    ) -> Iterator[Change]:
        """Takes in a beat: the writer's newest step, None before the first, and what else it says."""
        patient = self._patients.get(writer)
        if patient is None:
            return
        patient.heard_at, patient.heard_ns = now, now_ns
        if patient.state in _TOLD_BY_BEAT:
            yield from self._apply(patient, Sign.BEAT, {})
        if patient.is_held:
            patient.is_held = False
            patient.pace.moved_at = now
            yield from self._apply(patient, Sign.FREED, {})
        has_moved = (step is not None or said is not None) and patient.pace.see(step, now, said)
        if has_moved and patient.state in _TOLD_BY_STEP:
            yield from self._apply(patient, Sign.STEP, {})

    def progress(self, writer: int, step: int, now: float) -> Iterator[Change]:
        """Takes in a step that was stored: finer than beats, but no sign of life, for a spool may be drained.

        Steps behind the newest one tell nothing: they have waited while a beat overtook them.
        """
        patient = self._patients.get(writer)
        if patient is None or (patient.pace.step is not None and step < patient.pace.step):
            return
        if patient.pace.see(step, now):
            yield from self._apply(patient, Sign.STEP, {})

    def see(self, writer: int, sign: Sign, detail: Mapping[str, Any]) -> Iterator[Change]:
        """Takes in a sign that came otherwise: the process is gone, the writer closed."""
        patient = self._patients.get(writer)
        if patient is not None:
            yield from self._apply(patient, sign, detail)

    def excuse(self, seconds: float) -> None:
        """Counts nothing of the last `seconds` against anybody: it is the collector that was not there to hear."""
        for patient in self._patients.values():
            patient.heard_at += seconds
            patient.pace.excuse(seconds)

    def look(self, now: float, condition: Callable[[int], Condition | None] = _cannot_see) -> Iterator[Change]:
        """What has changed by mere waiting.

        Args:
            condition: how the process of a writer stands; None where it cannot be seen. Asked for those alone that
                are silent or still.
        """
        waited_for = self._waited_for(now)
        for patient in list(self._patients.values()):
            if patient.state in ENDED or patient.is_held:
                continue
            pace = patient.pace
            longest_s = waited_for.get(patient.group, 0.0)
            if longest_s and not pace.may_be_waited_for and now - pace.moved_at <= _OTHERS_FACTOR * longest_s:
                pace.excused_at = now
            silent_s = now - patient.heard_at
            if silent_s > self._patience.silent_s:
                yield from self._look_at_silent(patient, now, silent_s, condition(patient.writer))
            elif pace.is_quiet(now, self._patience) and Sign.QUIET in TRANSITIONS[patient.state]:
                seen = condition(patient.writer)
                by = f", under a debugger (process {seen.tracer})" if seen is not None and seen.tracer else ""
                how = "debugger" if by else "still"
                detail = {"reason": f"{pace.stands(now)}{by}", "how": how, "still_s": pace.still_s(now)}
                yield from self._apply(patient, Sign.QUIET, detail)

    def _look_at_silent(
        self, patient: Patient, now: float, silent_s: float, seen: Condition | None
    ) -> Iterator[Change]:
        pace, patience = patient.pace, self._patience
        if seen is None:
            reason = f"no sign of life for {silent_s:.0f} s"
            if now > pace.expects_until:
                yield from self._apply(patient, Sign.SILENT, {"reason": reason, "silent_s": silent_s})
            if patience.dead_s is not None and silent_s > patience.dead_s:
                detail = {"reason": f"{reason}: given up", "silent_s": silent_s, "lost": True}
                yield from self._apply(patient, Sign.LOST, detail)
            return
        if seen.state == "X":
            detail = {"reason": "its host has been started again", "unseen": True}
            yield from self._apply(patient, Sign.GONE, detail)
            return
        if seen.tracer and seen.state in ("T", "t"):
            how, reason = "debugger", f"held by a debugger (process {seen.tracer}) for {silent_s:.0f} s"
        elif seen.state == "T":
            how, reason = "stopped", f"stopped by a signal (SIGSTOP) for {silent_s:.0f} s"
        elif pace.is_quiet(now, patience) or (
            pace.allowed_s(patience) is None and silent_s > patience.held_s and now > pace.expects_until
        ):
            waits = "it waits for a disk or a file system" if seen.state == "D" else "C code holds the interpreter"
            how = "silent"
            reason = f"{pace.stands(now)}, and no beat for {silent_s:.0f} s, though its process is there: {waits}"
        else:
            return
        detail = {"reason": reason, "how": how, "still_s": pace.still_s(now)}
        for change in self._apply(patient, Sign.HELD, detail):
            patient.is_held = True
            yield change

    def _waited_for(self, now: float) -> dict[int | None, float]:
        """By group, how long one of it may be where it is, as far as the others may have to wait for that."""
        found: dict[int | None, float] = {}
        for patient in self._patients.values():
            pace = patient.pace
            stood_s = now - pace.moved_at
            if stood_s < _OTHERS_WAIT_SHARE * self._patience.stall_min_s or patient.group is None:
                continue
            if pace.may_be_waited_for:
                allowed = pace.allowed_s(self._patience)
            elif pace.is_busy(now, self._patience):
                allowed = self._patience.busy_s
            else:
                continue
            if patient.state is State.RUNNING and allowed is not None and stood_s <= allowed:
                found[patient.group] = max(found.get(patient.group, 0.0), allowed)
        return found

    def _apply(self, patient: Patient, sign: Sign, detail: Mapping[str, Any]) -> Iterator[Change]:
        if sign is Sign.CLOSED and detail.get("exit_code") == 0:
            patient.is_settled = True
        elif sign is Sign.GONE_BADLY and patient.is_settled:
            return
        elif sign is Sign.GONE_BADLY:
            patient.bad_end = detail
        elif sign is Sign.CLOSED and patient.bad_end is not None:
            sign, detail = Sign.CLOSED_BADLY, {**detail, **patient.bad_end}
        state = TRANSITIONS[patient.state].get(sign)
        if state is not None:
            patient.state = state
            yield Change(patient.writer, state, sign, detail)
