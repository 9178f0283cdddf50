"""What lives beside a run's log in a training process: its console, its files, its sections, its surroundings."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from allranks._loading import load
from allranks._signals import is_from_handler
from allranks._warnings import warn_once

if TYPE_CHECKING:
    from allranks._files import RunFiles
    from allranks._log import RankLog
    from allranks._place import RunPlace
    from allranks._sections import Sections
    from allranks._settings import RunSettings

# A rank says what surrounds it when the program has begun its work.
_SURROUNDINGS_AFTER_S = 3.0


class Companion(Protocol):
    """What a run asks of it."""

    def tick(self) -> None:
        """Called by the publisher's thread, about three times a second; returns within milliseconds."""

    def finish(self, deadline: float) -> bool:
        """Brings in what is left, until `deadline` (monotonic seconds) at most; True where nothing is left."""
        ...

    def leave(self) -> None:
        """Hands what is left over to whoever outlives this process, and waits for nothing."""

    def abandon(self) -> None:
        """In a forked child: closes descriptors, and keeps nothing."""


class Companions:
    """Those of one run in this process. What goes wrong in one costs neither the training nor the others.

    Attributes:
        files: None before there is a log, but where the run's directory was asked for.
        sections: None before there is a log, but where the program has told of its time.
    """

    def __init__(self) -> None:
        self.files: RunFiles | None = None
        self.sections: Sections | None = None
        # All that stand beside the log; none without one.
        self._all: tuple[Companion, ...] = ()
        self._log: RankLog | None = None
        # When this rank is to say what surrounds it (monotonic seconds).
        self._surroundings_at = float("inf")

    def join(self, log: RankLog, place: RunPlace, settings: RunSettings) -> None:
        """Makes what lives beside `log`; what this process prints is kept from now on."""
        from allranks._console import capture

        files = self.open_files(place)
        console = capture(place, settings)
        sections = self.open_sections()
        sections.log = self._log = log
        self._all = (log.pending, files, sections, *([console] if console is not None else []))
        if place.role == "rank":
            self._surroundings_at = time.monotonic() + _SURROUNDINGS_AFTER_S

    def open_files(self, place: RunPlace) -> RunFiles:
        """The run's files, which may be there before the log."""
        from allranks._files import RunFiles

        if self.files is None:
            self.files = RunFiles(place)
        return self.files

    def open_sections(self) -> Sections:
        """The process's sections, which may be there before the log."""
        from allranks._sections import Sections

        if self.sections is None:
            self.sections = Sections()
        return self.sections

    def status(self) -> dict[str, Any]:
        """What a beat tells of them."""
        return {} if self.sections is None else self.sections.status()

    def tick(self) -> None:
        """Called by the publisher's thread, three times a second."""
        if time.monotonic() >= self._surroundings_at:
            self._surroundings_at = float("inf")
            self._all = (*self._all, load("allranks._surroundings").Surroundings(self._log))
        self._each(lambda companion: companion.tick())

    def finish(self, deadline: float) -> None:
        """Brings in what is left, until `deadline` (monotonic seconds) at most."""
        self._each(lambda companion: companion.finish(deadline))

    def leave(self) -> None:
        """Hands what is left over to whoever outlives this process; so too the files of a rank that never logged."""
        if not self._all and self.files is not None:
            self._all = (self.files,)
        self._each(lambda companion: companion.leave())

    def abandon(self) -> None:
        """In a forked child: all of them are the parent's, and it has none."""
        early = [one for one in (self.files, self.sections) if one is not None]
        for companion in {*self._all, *early}:
            companion.abandon()
        self.files = self.sections = self._log = None
        self._all = ()
        self._surroundings_at = float("inf")

    def _each(self, action: Callable[[Companion], object]) -> None:
        for companion in self._all:
            try:
                action(companion)
            except Exception as error:
                if is_from_handler(error):
                    raise
                name = type(companion).__name__
                warn_once(f"companion:{name}", f"{name.lower()}: {type(error).__name__}: {error}; training goes on")
