"""The console of a rank: what it, its C code and its children print goes through a tee, which keeps it.

`capture` puts a pipe (a pty, where there is a terminal) under the descriptors 1 and 2; `sys.stdout` stays the object
that it was. The tee, a process of its own, reads from there, so that no GIL can hold printing up and the last words
of a crash are kept. It is started before anything is led through it, for whatever happens next must be seen. This
process keeps the reading ends too: where the tee is killed nobody gets SIGPIPE, and the next one goes on. A thread
waits for that alone: the publisher's may be printing itself, and wait for the tee.
"""

from __future__ import annotations

import os
import sys
import termios
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from allranks._behind import BEHIND_VARIABLE, Behind, identity_of, rank_of
from allranks._loading import load
from allranks._notebooks import is_notebook
from allranks._place import RunPlace
from allranks._signals import is_from_handler
from allranks._streams import Captured, Pump, flush, key_of
from allranks._tee import TeeProcess, library_path
from allranks._warnings import warn_once
from allranks_bus import events
from allranks_bus.events import Kind
from allranks_bus.limits import WRITER_ID_BYTES
from allranks_bus.sandbox import may_schedule
from allranks_bus.tee.spec import BROKEN, CLOSED, DONE, FLUSH, FLUSHED, GONE, IN_VAIN, READY, SHARED, STREAMS, Spec

if TYPE_CHECKING:
    from allranks._console_feed import Feed
    from allranks._settings import RunSettings
    from allranks._wrap import WrappedConsole

# After so many tees in vain the descriptors are given back.
MAX_STARTS = 4
# How long the end of a program waits for what it has printed to be seen.
LEAVE_S = 0.05
_SIZE_EVERY_S = 1.0
_PUMP_S = 0.5


def capture(place: RunPlace, settings: RunSettings) -> Console | WrappedConsole | None:
    """Begins to keep what this process prints; None where that cannot be, or is not its to keep. Never raises,
    but for what a signal handler of the program does.

    Where a tee would not do, what the streams of this process's Python are told is kept instead.
    """
    if settings.console == "off":
        return None
    if settings.console == "wrap" or not _may_have_tee():
        from allranks._wrap import wrapped

        return wrapped(place, settings)
    # A rank's alone: a process that works for a rank prints into that one's pipe already.
    return _captured(place, settings) if place.role == "rank" else None


def _may_have_tee() -> bool:
    """False in a notebook, where no descriptor is printed to; under pytest's capture, which reads back what a test
    has printed, at once; and in a program that is frozen together with its Python, which leaves none to run a tee.
    """
    is_read_back = type(sys.stdout).__module__.partition(".")[0] == "_pytest"
    is_frozen = not sys.executable or getattr(sys, "frozen", False)
    return not (is_notebook() or is_read_back or is_frozen)


def _captured(place: RunPlace, settings: RunSettings) -> Console | None:
    captured: list[Captured] = []
    try:
        behind = Behind.of(place.env)
        numbers = [number for number in STREAMS if _is_to_capture(number, place, behind)]
        if len(numbers) > 1 and os.isatty(numbers[0]) and len(set(map(key_of, numbers))) == 1:
            captured.append(Captured(*numbers))
        else:
            for number in numbers:
                captured.append(Captured(number))
        return Console(place, captured, behind, settings) if captured else None
    except BaseException as error:
        for stream in captured:
            stream.close()
        if not isinstance(error, (OSError, ValueError, RuntimeError, termios.error)) or is_from_handler(error):
            raise
        warn_once("console", f"what is printed is not kept: {error}")
        return None


def _is_to_capture(number: int, place: RunPlace, behind: Behind) -> bool:
    if (sys.__stdout__, sys.__stderr__)[number - 1] is None:
        return False  # it was closed when the program started: what has its number now is something else
    try:
        key = key_of(number)
    except OSError:
        return False
    return not behind.keeps(place, number, key)


class Console:
    """The capture of one process's streams, from its making to `finish`.

    Raises:
        OSError, ValueError, RuntimeError: it cannot begin; all is as before, and the streams are the caller's.
    """

    def __init__(self, place: RunPlace, streams: Sequence[Captured], behind: Behind, settings: RunSettings) -> None:
        self._place = place
        self._streams = streams
        self._settings = settings
        # A name that nobody guesses, for as long as this capture lasts.
        self._door = os.urandom(WRITER_ID_BYTES).hex()
        numbers = (stream.number for stream in streams)
        self._behind = {number: behind.door for number in numbers if behind.keys.get(number) == key_of(number)}
        self._ships = place.destination != "offline" and may_schedule()
        # The tee's writer; and what ships its spool, made by the first who does.
        self._name = os.urandom(WRITER_ID_BYTES)
        self._feed: Feed | None = None
        # Of tees that were killed: what they have kept is to be shipped, and their spools are to be removed.
        self._left: list[Feed] = []
        # Held while shipping, by the publisher's thread or by the one that finishes.
        self._shipping = threading.Lock()
        self._starts = 0
        self._is_ready = self._is_over = self._has_given_up = False
        self._size_at = 0.0
        self._exported = ""
        # An order to flush has been given, and has been carried out. And: nobody can print any more.
        self._is_flush_due = False
        self._is_flushed = threading.Event()
        self._is_closed = threading.Event()
        flush()
        self._tee = self._start_tee()
        try:
            for stream in streams:
                stream.begin()
            self._export()
            threading.Thread(target=self._watch, name="allranks-console", daemon=True).start()
        except BaseException:
            self._retract()
            for stream in streams:
                stream.give_back()
            self._tee.close()
            raise

    # -- what a run asks of it -------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Ships what the tee has kept."""
        now = time.monotonic()
        if now >= self._size_at:
            self._size_at = now + _SIZE_EVERY_S
            for stream in self._streams:
                stream.follow_size()
        if self._ships and self._shipping.acquire(blocking=False):
            try:
                self._ship()
            finally:
                self._shipping.release()

    def finish(self, deadline: float) -> bool:
        """Gives the streams back, and waits until what was printed is seen and stored."""
        if self._is_over:
            return True
        self._retract()
        flush()
        for stream in self._streams:
            stream.give_back()
        self._flush_tee(deadline)
        is_stored = False
        if self._ships and self._shipping.acquire(timeout=max(0.0, deadline - time.monotonic())):
            try:
                is_stored = self._ship_all(deadline)
            finally:
                self._shipping.release()
        self._spare_delivery()
        self._is_over = True
        self._tee.leave_alone()
        return is_stored and self._is_closed.is_set()

    def leave(self) -> None:
        """At the end of the program: what has been printed is seen before it has ended. The capture goes on."""
        if not self._is_over:
            flush()
            self._flush_tee(time.monotonic() + LEAVE_S)
            self._spare_delivery()

    def abandon(self) -> None:
        """In a forked child: it prints on into its parent's pipe, and has nothing else of it."""
        self._is_over = True
        self._tee.close()
        for stream in self._streams:
            stream.close()
        # ZeroMQ's sockets are the parent's: they are not touched here, not even to be closed.
        _KEPT.append((self._feed, self._left))

    # -- the tee ---------------------------------------------------------------------------------------------------

    def _start_tee(self) -> TeeProcess:
        place = self._place
        spec = Spec(
            root=str(place.spool_root),
            name=self._name,
            cap_bytes=self._settings.spool_cap_bytes,
            limits=self._settings.console_limits,
            door=self._door,
            streams=[stream.number for stream in self._streams if stream.is_open],
            modes={stream.number: stream.modes for stream in self._streams if stream.modes},
            behind=self._behind,
            destination=place.destination,
            run=place.run,
            launch=place.launch,
            path=library_path(),
            opening=events.pack(Kind.OPEN, time.time_ns(), identity_of(place)),
        )
        sources = {stream.number: stream.source for stream in self._streams if stream.is_open}
        originals = {stream.number: stream.original for stream in self._streams if stream.is_open}
        self._starts += 1
        self._is_ready = False
        return TeeProcess(spec, sources, originals, place.env)

    def _watch(self) -> None:
        """The thread: what goes wrong in it must not be printed as its traceback."""
        try:
            self._attend()
        except Exception as error:
            warn_once("console:thread", f"the console is not attended to any more: {type(error).__name__}: {error}")

    def _attend(self) -> None:
        """Waits for what the tee says, for as long as there is one; starts another where it is killed."""
        self._tee.reap()
        while True:
            while words := self._tee.listen():
                self._hear(words)
            if self._is_over or self._is_closed.is_set():
                break
            if not any(stream.is_open for stream in self._streams):
                self._has_given_up = True  # nobody reads any of them, and nobody can print into them
                break
            if self._starts >= MAX_STARTS or not self._start_again():
                self._give_up()
                break
        self._tee.close()
        for stream in self._streams:
            stream.close()

    def _hear(self, words: bytes) -> None:
        if READY in words:
            self._is_ready = True
        if CLOSED in words:
            self._is_closed.set()
        if FLUSHED in words or CLOSED in words:
            self._is_flushed.set()
        if SHARED in words:
            warn_once("console:shared", "what this rank prints is kept for the rank that started it too")
        for stream in self._streams:
            if BROKEN[stream.number] in words:
                # A full disk, a file that fails: the program shall see that for itself, as it would have.
                stream.give_back()
            if GONE[stream.number] in words:
                # Nobody reads it any more. So shall its children: nobody holds the other end of their pipe.
                stream.give_back()
                stream.close()

    def _start_again(self) -> bool:
        self._tee.close()
        with self._shipping:
            self._left.append(self._own_feed())
            self._name, self._feed = os.urandom(WRITER_ID_BYTES), None
        try:
            self._tee = self._start_tee()
        except (OSError, ValueError):
            return False
        self._tee.reap()
        if self._is_flush_due:
            self._tee.order(FLUSH)
        # Not before: it may have to wait until somebody reads what is printed.
        warn_once("console:tee", "what keeps the console was killed; another process does that now")
        return True

    def _give_up(self) -> None:
        """Gives the streams back, and shows what is left in the pipes, and what others print there still."""
        self._has_given_up = True
        pump = Pump({stream.source: stream.original for stream in self._streams})
        # What was printed before is shown before, as far as that can be done while others print; but a program that
        # never stops to print must not go on like this.
        deadline = time.monotonic() + _PUMP_S
        while pump.has_more(timeout_s=0.0) and time.monotonic() < deadline:
            pump.move()
        for stream in self._streams:
            stream.give_back()
        while pump.has_more(timeout_s=0.0):
            pump.move()
        self._is_flushed.set()
        warn_once("console:over", "what keeps the console was killed too often: what is printed is not kept any more")
        while pump.has_more(timeout_s=None):
            pump.move()

    def _flush_tee(self, deadline: float) -> None:
        """Waits until the tee has shown and kept what was printed so far."""
        if self._is_closed.is_set() or self._has_given_up:
            return
        if not self._is_ready and not any(stream.holds_anything() for stream in self._streams):
            return  # the tee has not begun to read, and nothing waits for it
        self._is_flushed.clear()
        self._is_flush_due = True
        self._tee.order(FLUSH)
        self._is_flushed.wait(max(0.0, deadline - time.monotonic()))
        self._is_flush_due = False

    # -- shipping --------------------------------------------------------------------------------------------------

    def _own_feed(self) -> Feed:
        """The feed of the tee that there is now."""
        feed = self._feed
        if feed is None:
            # Not at `init`, which a program waits for.
            feeds = load("allranks._console_feed")
            find = feeds.finder(self._place.destination)
            feed = self._feed = feeds.Feed(self._place.spool_root / self._name.hex(), find)
        return feed

    def _ship(self) -> None:
        self._own_feed().step()
        for feed in list(self._left):
            if feed.step():
                feed.remove()
                self._left.remove(feed)

    def _ship_all(self, deadline: float) -> bool:
        """Ships what all tees have kept so far; True where it is stored. None of them is looked at afterwards."""
        is_stored, own = True, self._own_feed()
        for feed in (*self._left, own):
            is_done = feed.finish(deadline)
            is_stored = is_stored and is_done
            if is_done and (feed is not own or self._is_closed.is_set()):
                if feed is own:
                    self._tee.order(DONE)
                feed.remove()
            else:
                feed.close()
        return is_stored

    def _spare_delivery(self) -> None:
        """Where a collector elsewhere does not answer, the tee need not try that again at its end."""
        if self._feed is not None and self._feed.waits_in_vain:
            self._tee.order(IN_VAIN)

    # -- those that this process starts ----------------------------------------------------------------------------

    def _export(self) -> None:
        keys = {number: stream.key for stream in self._streams for number in stream.numbers}
        self._exported = str(Behind(self._door, rank_of(self._place), keys))
        os.environ[BEHIND_VARIABLE] = self._exported

    def _retract(self) -> None:
        if os.environ.get(BEHIND_VARIABLE) == self._exported:
            before = self._place.env.get(BEHIND_VARIABLE)
            if before is None:
                del os.environ[BEHIND_VARIABLE]
            else:
                os.environ[BEHIND_VARIABLE] = before


# What forked children have of their parents' sockets: kept, so that nobody closes it.
_KEPT: list[object] = []
