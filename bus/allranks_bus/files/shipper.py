"""The shipper: sends the files of an outbox to a collector, from a process of its own.

`python -m allranks_bus.files.shipper OUTBOX [ADDRESS]` does so for as long as trainings use the outbox, and then
until nothing is left or nothing can be done. It may be killed at any time: the outbox says what is wanted, and the
collector what it has.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from allranks_bus.collector_finder import CollectorFinder
from allranks_bus.errors import AllranksError, SpoolBusy, SpoolError
from allranks_bus.files import outbox
from allranks_bus.files.agenda import Agenda, Wish
from allranks_bus.files.courier import Fate, FileCourier, Outcome, Parcel
from allranks_bus.files.launch import note_that_it_works
from allranks_bus.files.outbox import USERS, About
from allranks_bus.files.transfer import WINDOW_BYTES
from allranks_bus.priority import step_back
from allranks_bus.sandbox import may_schedule
from allranks_bus.spool_directory import take_lock
from allranks_bus.wire import MAX_CHUNK_BYTES

# How often the outbox is looked at; it costs two system calls.
_TICK_S, _HURRY_S = 0.1, 0.02
# A collector that says nothing for so long, while something is to be sent, is looked for anew.
_SILENCE_S = 5.0
_FIND_AGAIN_S = 10.0
# Without the trainings: how long a collector may say nothing, and how long it may get no further with any file.
_WORD_S, _PROGRESS_S = 3.0, 600.0
_IDLE_S = 5.0
# mallopt(3)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


@dataclass(frozen=True)
class Progress:
    """How far a shipping is.

    Attributes:
        name: of a file that is under way; empty where none is.
        stored, left: files that are stored since the start, and that are not yet.
        bytes_sent, bytes_left: of all these files.
    """

    name: str
    stored: int
    left: int
    bytes_sent: int
    bytes_left: int


@dataclass(frozen=True)
class Shipped:
    """What became of an outbox.

    Attributes:
        run: the run's id; empty where the outbox does not tell.
        stored: how many files it has brought in.
        left: how many are not stored.
        problems: what came in the way, a line each.
        is_removed: nothing is left, and the outbox is gone.
    """

    run: str
    stored: int
    left: int
    problems: tuple[str, ...]
    is_removed: bool


def ship(
    directory: Path,
    address: str | None = None,
    *,
    until_done: bool,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Shipped:
    """Ships the files of the outbox in `directory`. Blocks.

    Args:
        address: of the collector; None means the one that the outbox is meant for, which is started if need be.
        until_done: everything is sent now, as it is, whoever still uses the outbox; else it goes on for as long as
            somebody does.
        on_progress: told about ten times a second while something is under way.
        should_stop: asked about ten times a second.

    Raises:
        SpoolBusy: another process ships it.
        SpoolError: there is no such outbox.
    """
    try:
        lock = take_lock(directory)
    except BlockingIOError as error:
        raise SpoolBusy(f"{directory} is being shipped by another process") from error
    except OSError as error:
        raise SpoolError(f"{directory} is no outbox: {error.strerror}") from error
    try:
        about = outbox.read_about(directory)
        if about is None:  # whoever made it died before anything could be asked for
            return Shipped("", 0, 0, (), outbox.remove(directory))
        with contextlib.closing(_Shipping(directory, about, address, until_done=until_done)) as shipping:
            return shipping.run(on_progress, should_stop)
    finally:
        os.close(lock)


class _Shipping:
    """One shipping of one outbox, whose lock is held."""

    def __init__(self, directory: Path, about: About, address: str | None, *, until_done: bool) -> None:
        self._directory = directory
        self._about = about
        self._until_done = until_done
        self._owner = directory.stat().st_uid
        self._users = os.open(directory / USERS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._problems: list[str] = []
        self._agenda = Agenda(
            directory,
            about,
            self._owner,
            has_others=partial(outbox.is_held, self._users),
            say=self._say,
        )
        self._courier = FileCourier()
        self._finder = CollectorFinder(address or about.destination)
        self._wishes: dict[Parcel, Wish] = {}
        self._stored = 0
        self._leaving_since: float | None = None
        self._tick_at = 0.0
        self._find_at = 0.0
        self._word_at = float("-inf")
        self._busy_at = float("-inf")

    def close(self) -> None:
        self._courier.close()
        os.close(self._users)

    def run(self, on_progress: Callable[[Progress], None] | None, should_stop: Callable[[], bool]) -> Shipped:
        """Ships until the end; see `ship`."""
        is_removed = False
        while not is_removed:
            now = time.monotonic()
            if now >= self._tick_at:
                self._tick_at = now + (_HURRY_S if self._agenda.is_in_a_hurry else _TICK_S)
                if should_stop():
                    break
                self._tick(now)
                if on_progress is not None and not self._courier.is_idle:
                    on_progress(self._progress())
            self._agenda.look(now)
            self._fill(now)
            self._keep_connected(now, should_stop)
            is_full = self._courier.pump()
            self._courier.hear()
            for outcome in self._courier.outcomes():
                self._heed(outcome, time.monotonic())
            self._agenda.answer()
            if self._is_done:
                is_removed = outbox.remove(self._directory)
            if self._is_over(now) and not is_removed:
                # Somebody may have come since the last look: it goes on then.
                self._tick(now)
                if self._is_over(now):
                    break
            self._wait(is_full=is_full)
        return Shipped(self._about.run, self._stored, self._agenda.left, tuple(self._problems), is_removed)

    def _tick(self, now: float) -> None:
        """Looks who uses the outbox, and what they want."""
        if self._until_done or not outbox.is_held(self._users):
            if self._leaving_since is None:
                self._leaving_since = now
            self._agenda.leave(now)
        else:
            self._leaving_since = None
            self._agenda.stay()
        # After the look at the users: what the last one has asked for is there by then.
        self._agenda.read(now)

    def _fill(self, now: float) -> None:
        """Gives the courier what it has room for."""
        while (wish := self._agenda.next(now, self._courier.has_room_for)) is not None:
            about = self._about
            parcel = Parcel(wish.found, about.run, about.project, wish.launch, about.host, wish.rank, self._owner)
            if self._courier.carries(parcel):
                self._agenda.later(wish)
                continue
            if self._courier.is_idle:
                self._word_at = time.monotonic()
            self._wishes[parcel] = wish
            self._courier.add(parcel)

    def _keep_connected(self, now: float, should_stop: Callable[[], bool]) -> None:
        courier = self._courier
        if courier.is_idle:
            if courier.is_connected and now - self._busy_at > _IDLE_S:
                courier.disconnect()
            return
        self._busy_at = now
        self._word_at = max(self._word_at, courier.heard_at or self._word_at)
        if courier.is_connected and now - self._word_at < _SILENCE_S and not self._finder.has_died(now):
            return
        if now < self._find_at:
            return
        try:
            address = self._finder.find(should_stop)
        except AllranksError as error:
            self._say(str(error))
            self._find_at = now + _FIND_AGAIN_S
            return
        if address is not None:
            self._word_at = time.monotonic()
            courier.connect(address)

    def _heed(self, outcome: Outcome, now: float) -> None:
        wish = self._wishes.pop(outcome.parcel)
        if outcome.fate is Fate.STORED:
            self._stored += 1
            if self._stored == 1:
                note_that_it_works(self._directory)
            self._agenda.stored(wish, outcome.text, now)
        elif outcome.fate is Fate.NEVER:
            self._agenda.never(wish, outcome.text, now)
        elif outcome.fate is Fate.NOT_NOW:
            self._agenda.not_now(wish, outcome.text, now)
        elif outcome.fate is Fate.CHANGED:
            self._agenda.changed(wish, now)
        else:
            self._agenda.gone(wish)

    @property
    def _is_done(self) -> bool:
        return self._courier.is_idle and self._agenda.is_served and not self._agenda.left

    def _is_over(self, now: float) -> bool:
        """Nobody uses the outbox, and all has been tried, or nothing comes of it."""
        since = self._leaving_since
        if since is None:
            return False
        if self._courier.is_idle and self._agenda.is_served:
            return True
        word_at = max(since, self._word_at, self._courier.heard_at or since)
        return now - word_at > _WORD_S or now - max(since, self._courier.moved_at) > _PROGRESS_S

    def _wait(self, *, is_full: bool) -> None:
        timeout_s = max(0.0, self._tick_at - time.monotonic())
        if is_full or self._courier.is_idle or not self._courier.is_connected:
            time.sleep(min(timeout_s, _HURRY_S if is_full else _TICK_S))
        else:
            self._courier.wait(timeout_s)

    def _progress(self) -> Progress:
        acked = self._courier.acked
        here = sum(acked.values())
        return Progress(
            name=next(iter(acked), ""),
            stored=self._stored,
            left=self._agenda.left,
            bytes_sent=self._courier.stored_bytes + here,
            bytes_left=max(0, self._agenda.left_bytes - here),
        )

    def _say(self, text: str) -> None:
        if text not in self._problems:
            self._problems.append(text)


def main(arguments: list[str]) -> int:
    """Ships the outbox; 0 where nothing is left of it, or somebody else ships it."""
    # A Ctrl-C in the training's terminal is not meant for this process, which goes on with what is left.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    step_back()
    if not may_schedule():
        print("allranks: the sandbox denies sched_setscheduler, which ZeroMQ needs: no file is sent", file=sys.stderr)
        return 1
    _keep_memory()
    directory, address = Path(arguments[0]), arguments[1] if len(arguments) > 1 else None
    try:
        shipped = ship(directory, address, until_done=False)
    except SpoolBusy:
        return 0
    except AllranksError as error:
        print(f"allranks: {error}", file=sys.stderr)
        return 1
    for problem in shipped.problems:
        print(f"allranks: {problem}", file=sys.stderr)
    return int(shipped.left > 0)


def _keep_memory() -> None:
    """Has the C library keep what is freed, up to the window: a piece of a file after the other is read into it.

    Else each mebibyte is given back, and made anew by a page fault for each of its pages: half of the time in the
    kernel.
    """
    with contextlib.suppress(OSError, AttributeError):  # not every C library has it
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 2 * MAX_CHUNK_BYTES)
        mallopt(_M_TRIM_THRESHOLD, 2 * WINDOW_BYTES)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
