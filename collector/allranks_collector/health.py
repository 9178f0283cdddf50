"""The health of ranks: two clocks, one table.

**Liveness** asks whether the process is there: its pid where the collector can see it, else its beats. **Progress**
asks whether its step moves. Neither alone is the truth: a thread beats on while the main thread hangs, and is silent
while C code holds the interpreter. Pure: times are passed in, changes are returned.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


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
        Sign.SILENT: _U,
        Sign.GONE: _D,
        Sign.GONE_BADLY: _D,
        Sign.CLOSED: _OK,
        Sign.CLOSED_BADLY: _BAD,
    },
    _S: {
        Sign.STEP: _R,
        Sign.SILENT: _U,
        Sign.GONE: _D,
        Sign.GONE_BADLY: _D,
        Sign.CLOSED: _OK,
        Sign.CLOSED_BADLY: _BAD,
    },
    _U: {
        Sign.BEAT: _R,
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


def sign_of_close(end: Mapping[str, Any]) -> tuple[Sign, dict[str, Any]]:
    """What the map of a CLOSE record says of the writer's end: a sign, and the detail to store with it."""
    exit_code, exception = end.get("exit_code"), end.get("exception")
    detail: dict[str, Any] = {"exit_code": exit_code}
    if isinstance(exception, Mapping) and exception:
        reason = f"{exception.get('type')}: {exception.get('message')}"[:500]
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
class Patience:
    """How long a rank may be silent, and how long it may stand still.

    Attributes:
        silent_s: without a beat.
        stall_min_s: without a step, at the least.
        stall_factor: times its usual step.
    """

    silent_s: float = 5.0
    stall_min_s: float = 10.0
    stall_factor: float = 20.0


# What has happened once on a rank's way (an evaluation, a checkpoint) may happen again, and take a little longer.
_GAP_FACTOR = 3.0
_SMOOTHING = 0.2
_STEPS_BEFORE_JUDGING = 3


@dataclass
class Pace:
    """A rank's own pace, learned from the moments at which its step was seen to move."""

    step: int | None = None
    moved_at: float = 0.0
    moves: int = 0
    step_s: float = 0.0
    longest_gap_s: float = 0.0

    def see(self, step: int, now: float) -> bool:
        """Takes in the newest step; True where it has moved. The first one that is seen tells nothing yet."""
        if step == self.step:
            return False
        is_first = self.step is None
        if self.step is not None:
            gap = now - self.moved_at
            per_step = gap / max(1, step - self.step)
            self.step_s = per_step if self.moves == 0 else self.step_s + _SMOOTHING * (per_step - self.step_s)
            self.longest_gap_s = max(self.longest_gap_s, gap)
            self.moves += 1
        self.step, self.moved_at = step, now
        return not is_first

    def is_quiet(self, now: float, patience: Patience) -> bool:
        """True where it has stood still for longer than it ever should."""
        if self.moves < _STEPS_BEFORE_JUDGING:
            return False
        allowed = max(patience.stall_min_s, patience.stall_factor * self.step_s, _GAP_FACTOR * self.longest_gap_s)
        return now - self.moved_at > allowed


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

    def admit(self, writer: int, state: State, now: float, now_ns: int) -> None:
        """Begins to watch a writer; it has a full patience from now on, whatever was before."""
        self._patients.setdefault(writer, Patient(writer, state, now, now_ns))

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

    def hear(self, writer: int, step: int | None, now: float, now_ns: int) -> Iterator[Change]:
        """Takes in a beat, with the writer's newest step."""
        patient = self._patients.get(writer)
        if patient is None:
            return
        patient.heard_at, patient.heard_ns = now, now_ns
        yield from self._apply(patient, Sign.BEAT, {})
        if step is not None and patient.pace.see(step, now):
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
            patient.pace.moved_at += seconds

    def look(self, now: float) -> Iterator[Change]:
        """What has changed by mere waiting."""
        for patient in list(self._patients.values()):
            silent_s = now - patient.heard_at
            if silent_s > self._patience.silent_s:
                reason = f"no sign of life for {silent_s:.0f} s"
                yield from self._apply(patient, Sign.SILENT, {"reason": reason})
            elif patient.pace.is_quiet(now, self._patience):
                quiet_s = now - patient.pace.moved_at
                reason = f"no step after {patient.pace.step} for {quiet_s:.0f} s"
                yield from self._apply(patient, Sign.QUIET, {"reason": reason})

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
