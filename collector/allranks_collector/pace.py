"""The pace of a rank: how long it may stand still where it is, learned from how it has moved before. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from allranks_bus.limits import MAX_SECTION_CHARS, MAX_SECTIONS
from allranks_collector.stragglers import WAITS

_MAX_SAID_S = 30 * 86_400.0
# What has happened once on a rank's way (an evaluation, a checkpoint) may happen again, and take a little longer.
_GAP_FACTOR = 3.0
_SMOOTHING = 0.2
_STEPS_BEFORE_JUDGING = 3
_INIT, _STEP = "init", "step"
# Within such a gap, sections and steps are those of one loop.
_LOOP_S = 3.0
# Who was seen to get on so lately is at work.
_FRESH_S = 2.0
# The phases in which nobody waits for this rank alone.
_OF_ALL = frozenset({"", _INIT, _STEP}) | WAITS


@dataclass(frozen=True)
class Patience:
    """How long a rank may be silent, and how long it may stand still.

    Attributes:
        silent_s: without a beat.
        dead_s: without a beat, until it is given up; None: it never is.
        stall_min_s: without a step, at the least.
        stall_factor: times its usual step.
        first_s: in a section that it has never left yet; and where it has no pace, with its thread seen in the same
            functions all the while.
        held_s: without a beat while its process is there, where it has no pace to be judged by; and in a section of
            some seconds, at the least.
        busy_s: without a step, while its thread is seen to get on: in something that it has never done before.
    """

    silent_s: float = 5.0
    dead_s: float | None = 600.0
    stall_min_s: float = 10.0
    stall_factor: float = 20.0
    first_s: float = 600.0
    held_s: float = 60.0
    busy_s: float = 300.0


class Said(NamedTuple):
    """What a beat says of a rank's progress beside its step.

    Attributes:
        phase: `init` before its first step, `step`, or the section that it is in; empty where it says nothing.
        marks: how often it has entered and left sections.
        longest_s: the longest that it has been in this phase before; 0 where it never was.
        expects_s: seconds of standing still that it has announced, and that are left.
        still_s: for how long its training's thread has been seen in the same functions; None where it has not been
            looked at.
    """

    phase: str = ""
    marks: int = 0
    longest_s: float = 0.0
    expects_s: float = 0.0
    still_s: float | None = None


def said_in(status: Mapping[str, Any]) -> Said:
    """What the map of a beat says; what makes no sense is left out."""
    phase, marks = status.get("phase"), status.get("marks")
    return Said(
        phase[:MAX_SECTION_CHARS] if isinstance(phase, str) else "",
        marks if type(marks) is int else 0,
        _seconds(status.get("longest")),
        _seconds(status.get("expects")),
        _seconds(status["still"]) if "still" in status else None,
    )


def _seconds(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and 0 <= value <= _MAX_SAID_S else 0.0


@dataclass
class Pace:
    """A rank's own pace in each phase, learned from the moments at which it was seen to move.

    It moves with its step, and by entering and leaving sections.
    """

    step: int | None = None
    phase: str = ""
    moved_at: float = 0.0
    moves: int = 0
    step_s: float = 0.0
    longest_s: dict[str, float] = field(default_factory=dict[str, float])
    expects_until: float = 0.0
    # While others took what they are known to take, it may have waited for them.
    excused_at: float = 0.0
    # When its thread was last seen to get on, where it is looked at.
    active_at: float = 0.0
    is_looked_at: bool = False
    _marks: int = 0
    _told_s: float = 0.0
    _is_seen: bool = False

    def see(self, step: int | None, now: float, said: Said | None = None) -> bool:
        """Takes in the newest step, and what a beat says; True where it has moved. The first tells nothing yet."""
        has_stepped = step is not None and step != self.step
        has_moved = has_stepped or (said is not None and (said.marks, said.phase) != (self._marks, self.phase))
        is_first, self._is_seen = not self._is_seen, True
        if has_moved:
            if not is_first:
                self._learn(now - self.moved_at, step if has_stepped else None)
            self.moved_at = now
            self.step = step if has_stepped else self.step
        if said is not None:
            self.phase, self._marks, self._told_s = said.phase, said.marks, said.longest_s
            if said.expects_s:
                self.expects_until = now + said.expects_s
            self.is_looked_at = said.still_s is not None
            if said.still_s is not None:
                self.active_at = max(self.active_at, now - said.still_s)
        elif self.phase == _INIT:
            self.phase = _STEP
        if has_stepped and not (said and said.expects_s):
            self.expects_until = 0.0
        return has_moved and not is_first

    def _learn(self, gap: float, step: int | None) -> None:
        phase = self.phase or _STEP
        # What was announced says nothing of what is usual.
        if phase == _INIT or self.expects_until > self.moved_at or (step is not None and self.step is None):
            return
        if phase in self.longest_s or len(self.longest_s) <= MAX_SECTIONS:
            self.longest_s[phase] = max(self.longest_s.get(phase, 0.0), gap)
        if step is not None and self.step is not None and (phase == _STEP or gap <= _LOOP_S):
            per_step = gap / max(1, step - self.step)
            self.step_s = per_step if self.moves == 0 else self.step_s + _SMOOTHING * (per_step - self.step_s)
            self.moves += 1

    @property
    def may_be_waited_for(self) -> bool:
        """True in a phase that the others of its training may have to wait for."""
        return self.expects_until > self.moved_at or self.phase not in _OF_ALL

    def allowed_s(self, patience: Patience) -> float | None:
        """How long it may stand where it is; None where nothing is known that it could be judged by."""
        announced_s = self.expects_until - self.moved_at
        allowed = announced_s + patience.stall_min_s if announced_s > 0 else None
        longest_s = max(self._told_s, self.longest_s.get(self.phase or _STEP, 0.0))
        if self.phase in ("", _STEP):
            if self.moves >= _STEPS_BEFORE_JUDGING:
                usual = max(patience.stall_factor * self.step_s, _GAP_FACTOR * longest_s)
            elif self._told_s:  # it has its pace from itself, and hangs before it was seen from here
                usual = patience.stall_factor * self._told_s
            else:
                return allowed
        elif self.phase == _INIT:
            return allowed
        else:
            # A short one is a part of each step, and as regular; one of seconds may have been short for once. (Only
            # itself knows how short: beats come once a second.)
            often_s = min(patience.stall_factor * self._told_s, patience.held_s)
            usual = max(often_s, _GAP_FACTOR * longest_s) if longest_s else patience.first_s
        return max(patience.stall_min_s, usual, allowed or 0.0)

    def is_quiet(self, now: float, patience: Patience) -> bool:
        """True where it has stood still for longer than it ever should."""
        stood_s = now - max(self.moved_at, self.excused_at)
        if stood_s <= patience.stall_min_s:  # that much everybody may
            return False
        allowed = self.allowed_s(patience)
        if allowed is None:
            return self.is_looked_at and min(stood_s, now - self.active_at) > patience.first_s
        if now - self.moved_at <= patience.busy_s:
            stood_s = min(stood_s, now - self.active_at)
        return stood_s > allowed

    def is_busy(self, now: float, patience: Patience) -> bool:
        """True where it does something between two steps, and was seen to get on with that a moment ago."""
        return now - self.active_at <= _FRESH_S and now - self.moved_at <= patience.busy_s

    def stands(self, now: float) -> str:
        """Where it has stood still, and for how long, in words."""
        where = f", in {self.phase}" if self.phase not in ("", _INIT, _STEP) else ""
        after = f"no step after {self.step}" if self.step is not None else "no first step"
        return f"{after} for {now - self.moved_at:.0f} s{where}"

    def still_s(self, now: float) -> float:
        """For how long, in seconds."""
        return round(now - self.moved_at, 3)

    def excuse(self, seconds: float) -> None:
        """Counts nothing of the last `seconds`."""
        self.moved_at += seconds
        self.excused_at += seconds
        self.active_at += seconds
        self.expects_until += seconds
