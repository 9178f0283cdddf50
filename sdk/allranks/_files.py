"""A run's files in a training process: what is to be sent of them is noted, and sent by a process of its own.

That one is started by exec once there is something to send; one serves all ranks of a run on a host. So a training
pays for its files with a look per second, and what is left at its end is sent after it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from allranks._loading import load
from allranks._place import RunPlace
from allranks._signals import is_from_handler
from allranks._warnings import say, warn_once

if TYPE_CHECKING:
    from allranks._outbox import OutboxUser

T = TypeVar("T")
U = TypeVar("U")

_LOOK_S = 1.0
# At the end of a program the publisher's thread may be in the middle of starting the process that ships.
_LEAVE_WAITS_S = 1.0


class RunFiles:
    """The files of a run, as far as this process has to do with them: a companion of the run's log.

    Most programs have none: nothing is made before there is something in the run's directory, or it is asked for.
    """

    def __init__(self, place: RunPlace) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._outbox: OutboxUser | None = None
        self._look_at = 0.0
        self._is_over = False

    def open(self) -> None:
        """Makes sure that what comes into the run's directory is sent, even where this process is killed."""
        if self._outbox is None:
            with self._lock:
                self._try(self._joined, None)

    def save(
        self, pattern: str | os.PathLike[str], base_path: str | os.PathLike[str] | None = None, policy: str = "live"
    ) -> list[str]:
        """Has files sent; the names under which they will be stored. What is wrong gives a warning, never an error.

        Args:
            pattern: a path, with or without wildcards; `**` means any folders.
            base_path: the folder that names are relative to. None means the working directory for a relative
                pattern, and the folder before the first wildcard for an absolute one.
            policy: `live` (now, and again whenever a file has changed), `now` (once), or `end` (when this process
                finishes or ends).
        """
        with self._lock:
            if self._is_over:
                warn_once("files:over", "the run has ended: no more files of it are saved")
            names = self._try(lambda: self._joined().save(pattern, base_path, policy), [])
            self._look_at = 0.0  # the next tick sees to it
        return names

    def tick(self) -> None:
        """Called often; looks once a second whether there is anything to send, and whether somebody sends it."""
        now = time.monotonic()
        if now < self._look_at or not self._lock.acquire(blocking=False):
            return
        try:
            self._look_at = now + _LOOK_S
            self._try(self._look, None)
        finally:
            self._lock.release()

    def finish(self, deadline: float) -> bool:
        """Waits until all files are stored, but not beyond `deadline`; True where nothing is left to wait for."""
        with self._lock:
            if self._is_over or not self._has_any():
                self._close()
                return True
            try:
                is_done = self._try(lambda: self._joined().flush(deadline, has_content=self._has_content()), False)
            finally:
                self._close()
        if not is_done:
            say(f"run {self._place.run}: some files are not stored yet; a process of its own goes on sending them")
        return is_done

    def leave(self) -> None:
        """Sees to it that what is left is sent, and waits for nothing."""
        if not self._lock.acquire(timeout=_LEAVE_WAITS_S):
            return  # whoever has the lock is at just this
        try:
            self._try(self._look, None)
        finally:
            self._close()
            self._lock.release()

    def abandon(self) -> None:
        """In a forked child: lets go of what is the parent's."""
        self._lock = threading.Lock()  # a thread that does not exist here may hold the old one
        outbox, self._outbox = self._outbox, None
        self._is_over = True
        if outbox is not None:
            outbox.abandon()

    # -- inside, with the lock held --------------------------------------------------------------------------------

    def _look(self) -> None:
        if self._has_any():
            self._joined().look(has_content=self._has_content())

    def _joined(self) -> OutboxUser:
        """The outbox, which this process uses from now on."""
        if self._outbox is None:
            outbox: OutboxUser = load("allranks._outbox").OutboxUser(self._place)
            self._outbox = outbox
        return self._outbox

    def _has_any(self) -> bool:
        return self._outbox is not None or self._has_content()

    def _has_content(self) -> bool:
        try:
            with os.scandir(self._place.directory) as entries:
                return next(entries, None) is not None
        except OSError:  # for most runs it is never made
            return False

    def _close(self) -> None:
        self._is_over = True
        outbox, self._outbox = self._outbox, None
        if outbox is not None:
            outbox.close(has_content=self._has_content())

    def _try(self, action: Callable[[], T], otherwise: U) -> T | U:
        """What `action` gives; what goes wrong is told once, and is no reason for the training to stop."""
        try:
            return otherwise if self._is_over else action()
        except Exception as error:
            if is_from_handler(error):
                raise
            warn_once(f"files:{type(error).__name__}", f"files of the run {self._place.run} cannot be sent: {error}")
            return otherwise
