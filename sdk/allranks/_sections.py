"""Sections: what a training's time goes to, and which part of its way it is on.

Entering and leaving one costs about a microsecond and takes no lock: each thread writes its own sums, which only
grow; the publisher's thread stores about once a second what has come since. Beats tell the innermost section that the
training's thread is in, so a long checkpoint is judged by earlier ones, and not by the pace of its steps.

Where no step has come for a while, beats also tell for how long that thread has been in the same functions: one that
evaluates or compiles goes from one to the next, and one that waits for another rank, or for ever, does not. One that
is in a single call for long, and moves bytes all the while (it saves a model, or waits for a program that copies it),
is seen to get on too, by the kernel's count. The processor's time tells nothing: who waits in a collective spins.
"""

from __future__ import annotations

import math
import os
import sys
from threading import get_ident, get_native_id
from time import monotonic, time_ns
from typing import Any, Protocol

from allranks._notebooks import is_notebook
from allranks._warnings import warn_once
from allranks_bus import events
from allranks_bus.events import Kind
from allranks_bus.limits import MAX_SECTION_CHARS, MAX_SECTIONS

WRITE_S = 1.0
# Longer announcements would be as good as none.
MAX_EXPECTED_S = 7 * 86_400.0

# In a notebook a person decides when the next step comes: each beat announces that none may come for so long.
IDLE_S = 15.0
# Without a step for so long, the thread is looked at; so far up from where it is, which tells one place from another.
LOOK_AFTER_S = 1.0
MOST_FRAMES = 64
# Its pace is known once it was seen to step so often, or has made so many steps.
GAPS_OF_A_PACE, STEPS_OF_A_PACE = 3, 10
# A thread that reads or writes as much in a second is at work; one that polls a file or a socket is far below.
MOVING_BYTES_S = 1 << 20
MOST_CHILDREN = 32
_COUNTS = (b"rchar:", b"wchar:", b"read_bytes:", b"write_bytes:")

_INIT, _STEP = "init", "step"
# A section under way: its name, when it began, and the seconds that sections within it took.
_Open = list[Any]


class Log(Protocol):
    """What is asked of a rank's log."""

    step: int

    def append_ours(self, payload: bytes) -> bool: ...


class _Thread:
    """What one thread has been in; written by it alone, but for `longest`, which who reads sets back."""

    __slots__ = ("marks", "open", "sums")

    def __init__(self) -> None:
        self.open: list[_Open] = []
        # How often it has entered or left a section.
        self.marks = 0
        # By name: how often, the seconds without those of sections within, the longest since the last look, and ever.
        self.sums: dict[str, list[Any]] = {}


class Section:
    """A part of the training's work, as a context manager; used again, in other threads and within itself too."""

    __slots__ = ("_name", "_threads")

    def __init__(self, threads: dict[int, _Thread], name: str) -> None:
        self._threads = threads
        self._name = name

    def __enter__(self) -> Section:
        ident = get_ident()
        thread = self._threads.get(ident)
        if thread is None:
            thread = self._threads[ident] = _Thread()
        thread.open.append([self._name, monotonic(), 0.0])
        thread.marks += 1
        return self

    def __exit__(self, *_: object) -> None:
        now = monotonic()
        thread = self._threads.get(get_ident())
        if thread is None:  # it was entered before a fork, or in another thread
            return
        opened, name = thread.open, self._name
        # The last is its own, but where coroutines take turns.
        at = len(opened) - 1
        while at >= 0 and opened[at][0] != name:
            at -= 1
        if at < 0:
            return
        _, begun, inner = opened.pop(at)
        spent = now - begun
        if at:
            opened[at - 1][2] += spent
        sums = thread.sums.get(name)
        if sums is None:
            thread.sums[name] = [1, spent - inner, spent, spent]
        else:
            sums[0] += 1
            sums[1] += spent - inner
            if spent > sums[2]:
                sums[2] = spent
                if spent > sums[3]:
                    sums[3] = spent
        thread.marks += 1


class Sections:
    """The sections of one process; a companion of its run once `log` is set. None of its calls raises.

    The thread that makes it is taken for the one that trains: where it marks any sections, only those of this thread
    are stored, and what others do beside it (loading ahead) is not taken for the step's time.

    Attributes:
        log: where they are stored.
    """

    def __init__(self) -> None:
        self.log: Log | None = None
        self._sections: dict[str, Section] = {}
        self._threads: dict[int, _Thread] = {}
        self._trainer = get_ident()
        self._task = get_native_id()
        # By name: how often, and the seconds.
        self._written: dict[str, tuple[int, float]] = {}
        self._written_at = self._moved_at = monotonic()
        self._written_step = -1
        self._moved = (-1, 0)
        self._last_phase = _INIT
        self._longest_step_s = 0.0
        self._first_step = self._gaps = 0
        # The functions that the training's thread was last seen in, and since when.
        self._place: int | None = None
        self._still_since = 0.0
        # The bytes that it had moved, and when that was read.
        self._bytes: int | None = None
        self._bytes_at = 0.0
        self._expected_until = 0.0
        self._expected_from = -1

    def section(self, name: str) -> Section:
        """The section of this name; that of `other` where there are too many names."""
        try:
            return self._sections[name]
        except (KeyError, TypeError):
            return self._new(name)

    def expect(self, seconds: float) -> None:
        """Announces that no step may come for so long; the next step ends the announcement."""
        try:
            span = float(seconds)
        except (TypeError, ValueError, OverflowError):
            span = math.nan
        if not span >= 0:
            warn_once("expect", f"expect({seconds!r:.40}): seconds are a number, 0 or more; nothing is announced")
            return
        self._expected_from = -1 if self.log is None else self.log.step
        self._expected_until = monotonic() + min(span, MAX_EXPECTED_S)

    def status(self) -> dict[str, Any]:
        """What a beat says of it: `phase`, and `marks`, `longest` and `expects` where there are any."""
        phase, marks = self._phase()
        told: dict[str, Any] = {"phase": phase}
        if marks:
            told["marks"] = marks
        longest = self._longest_of_steps() if phase == _STEP else self._longest(phase)
        if longest:
            told["longest"] = round(longest, 3)
        left = self._expected_until - monotonic()
        if self._expected_from != self._step():
            left = 0.0
        if is_notebook():
            left = max(left, IDLE_S)
        if left > 0:
            told["expects"] = round(left, 1)
        if self._place is not None:
            told["still"] = round(monotonic() - self._still_since, 1)
        return told

    def tick(self) -> None:
        """Called by the publisher's thread: learns its pace, and stores what has come since the last second."""
        now = monotonic()
        phase, marks = self._phase()
        moved = (self._step(), marks)
        if moved != self._moved:
            if self._moved[0] < 0 <= moved[0]:
                # What it took to begin is no step's; but where this thread began late, the first steps are among it.
                self._write(moved[0] or -1, is_first=True)
                self._first_step = moved[0]
            elif self._last_phase == _STEP:
                self._longest_step_s = max(self._longest_step_s, now - self._moved_at)
                self._gaps += 1
            self._moved, self._moved_at = moved, now
            self._place = None
        elif now - self._moved_at >= LOOK_AFTER_S:
            self._look(now)
        self._last_phase = phase
        if now - self._written_at >= WRITE_S:
            self.write()

    def _look(self, now: float) -> None:
        """Sees whether the training's thread is still in the functions that it was in, and moves no bytes there."""
        place = _place_of(self._trainer)
        if self._place is None:
            self._still_since, self._bytes = self._moved_at, None
        elif place != self._place:
            self._still_since, self._bytes = now, None
        self._place = place
        since_s = now - self._bytes_at
        if self._bytes is None or since_s >= LOOK_AFTER_S:
            before, self._bytes, self._bytes_at = self._bytes, bytes_moved(self._trainer, self._task), now
            if before is not None and (self._bytes or 0) - before >= MOVING_BYTES_S * since_s:
                self._still_since = now

    def write(self) -> None:
        """Stores what has not been stored yet."""
        self._write(self._step())

    def _write(self, step: int, *, is_first: bool = False) -> None:
        log, now = self.log, monotonic()
        if log is None:
            return
        came = self._came()
        if came:
            begin = min(self._written_step + 1, step)
            seconds = sum(spent for _, spent, _ in came.values()) if is_first else now - self._written_at
            body = {"from": begin, "to": step, "seconds": seconds, "sections": came}
            log.append_ours(events.pack(Kind.SECTIONS, time_ns(), body))
        elif self._sections and step == self._written_step:
            return  # one section goes on: its seconds and those of the window come together, when it ends
        self._written_at, self._written_step = now, step

    def finish(self, deadline: float) -> bool:  # noqa: ARG002
        """Nothing: the run has them stored before its log ends."""
        return True

    def leave(self) -> None:
        """Nothing, likewise."""

    def abandon(self) -> None:
        """In a forked child: what was under way is the parent's; one that logs has sections of its own."""
        self._threads.clear()

    def _new(self, name: Any) -> Section:
        try:
            text = str(name)[:MAX_SECTION_CHARS] or "other"
        except Exception:  # of a name that cannot say what it is
            text = "other"
        if text not in self._sections and len(self._sections) >= MAX_SECTIONS - 1:
            warn_once("sections", f"there are {MAX_SECTIONS} sections already: {text!r:.40} is taken as 'other'")
            text = "other"
        return self._sections.setdefault(text, Section(self._threads, text))

    def _step(self) -> int:
        return -1 if self.log is None else self.log.step

    def _phase(self) -> tuple[str, int]:
        """The innermost section of the training's thread, and how many it has entered and left."""
        thread = self._threads.get(self._trainer)
        opened = thread.open[-1:] if thread is not None else []
        marks = thread.marks if thread is not None else 0
        return (str(opened[0][0]) if opened else _INIT if self._step() < 0 else _STEP), marks

    def _longest_of_steps(self) -> float:
        """The longest that it has gone without a step between two; 0 while it has made too few to tell."""
        has_pace = self._gaps >= GAPS_OF_A_PACE or self._step() - self._first_step >= STEPS_OF_A_PACE
        return self._longest_step_s if has_pace else 0.0

    def _longest(self, name: str) -> float:
        thread = self._threads.get(self._trainer)
        sums = None if thread is None else thread.sums.get(name)
        return 0.0 if sums is None else float(sums[3])

    def _came(self) -> dict[str, tuple[int, float, float]]:
        """What each section has taken since it was last stored: how often, seconds, the longest."""
        trainer = self._threads.get(self._trainer)
        totals: dict[str, list[Any]] = {}
        # Copies: their threads go on.
        for thread in [trainer] if trainer is not None else list(self._threads.values()):
            for name, sums in list(thread.sums.items()):
                total = totals.setdefault(name, [0, 0.0, 0.0])
                total[0] += sums[0]
                total[1] += sums[1]
                total[2] = max(total[2], sums[2])
                sums[2] = 0.0
        came: dict[str, tuple[int, float, float]] = {}
        for name, (number, spent, longest) in totals.items():
            before = self._written.get(name, (0, 0.0))
            if number > before[0]:
                came[name] = (number - before[0], max(0.0, spent - before[1]), longest)
                self._written[name] = (number, spent)
        return came


def _place_of(ident: int) -> int:
    """What stands for the functions that a thread is in, whatever lines of them: a loop that polls stands still."""
    frame = sys._current_frames().get(ident)  # pyright: ignore[reportPrivateUsage]  (documented)
    place = 0
    for _ in range(MOST_FRAMES):
        if frame is None:
            break
        place = hash((place, id(frame.f_code)))
        frame = frame.f_back
    return place


def bytes_moved(ident: int, task: int) -> int | None:
    """The bytes that a thread of this process has read and written; None where the kernel does not tell.

    With those of the programs that it has started, while it waits for one: a checkpoint that is copied elsewhere.
    Calls are counted when they return, pages on their way to a disk as they are dirtied: one call may take minutes.
    """
    own = _bytes_in(f"/proc/self/task/{task}/io")
    if own is None or not _waits_for_program(ident):
        return own
    children = _read(f"/proc/self/task/{task}/children").split()[:MOST_CHILDREN]
    # A shell between them is waiting too.
    below = [pid for child in children for pid in _read(f"/proc/{int(child)}/task/{int(child)}/children").split()]
    return own + sum(_bytes_in(f"/proc/{int(pid)}/io") or 0 for pid in (*children, *below[:MOST_CHILDREN]))


def _waits_for_program(ident: int) -> bool:
    """Whether a thread is in `subprocess`: a few frames above are of a lock or a selector."""
    frame = sys._current_frames().get(ident)  # pyright: ignore[reportPrivateUsage]  (documented)
    for _ in range(4):
        if frame is None:
            return False
        if frame.f_globals.get("__name__") == "subprocess":
            return True
        frame = frame.f_back
    return False


def _bytes_in(path: str) -> int | None:
    fields = _read(path).split()
    counts = dict(zip(fields[::2], fields[1::2], strict=False))
    return sum(int(counts.get(name, 0)) for name in _COUNTS) if counts else None


def _read(path: str) -> bytes:
    """The beginning of a file of /proc; nothing where it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, 4096)
    except OSError:
        return b""
    finally:
        os.close(fd)
