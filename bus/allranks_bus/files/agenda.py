"""The agenda of an outbox: which files are to be sent next, and whether what was asked for is done.

It looks at files, and knows nothing of collectors. Times are monotonic seconds.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from allranks_bus.files.outbox import About
from allranks_bus.files.outbox_ledger import Flush, Flushed, Key, Ledger, Policy, Problem, Save, User, Wishes
from allranks_bus.files.search import Finding, Found, Unfit, expand, walk
from allranks_bus.files.source import SMALL_BYTES, CannotSend, FileChanged, Writers, open_file, writers_of
from allranks_bus.files.watch import Watch

# How often is looked, but never for more than a twentieth of the time, and for half of it where somebody waits.
_LOOK_S, _LOOK_SOON_S, _HURRY_S = 1.0, 0.3, 0.05
_SHARE, _HURRY_SHARE = 20, 2
# A file that changes while it is sent is told of after so many times in a row.
_CHANGES = 3
# What the collector could not take, or we not read, is tried again after so long, then twice as long, and so on.
_AGAIN_S, _AGAIN_AT_MOST_S = 5.0, 60.0


@dataclass(frozen=True)
class Wish:
    """A file to send, in the state in which it was found; `rank` is None where it is nobody's in particular."""

    found: Found
    policy: Policy
    writer: str
    launch: str
    rank: int | None

    @property
    def key(self) -> Key:
        return self.found.path, self.found.name


@dataclass
class _Trouble:
    """What stands in a file's way."""

    changes: int = 0
    pause_s: float = _AGAIN_S
    not_before: float = 0.0


@dataclass
class _Waiting:
    """A flush under way, since it was read. `has_others`: another process uses the outbox, too."""

    flush: Flush
    since: float
    has_others: bool = False


class Agenda:
    """What is left to do for the outbox in `directory`.

    Args:
        owner: the user whose files are sent.
        has_others: asked with a pid: whether another process than that one uses the outbox.
        say: told of each problem, once.
    """

    def __init__(
        self,
        directory: Path,
        about: About,
        owner: int,
        *,
        has_others: Callable[[int], bool],
        say: Callable[[str], None],
    ) -> None:
        self._about = about
        self._owner = owner
        self._has_others = has_others
        self._say = say
        self._wishes = Wishes(directory)
        self._ledger = Ledger(directory)
        self._watch = Watch()
        self._finished: set[str] = set()
        self._flushes: list[_Waiting] = []
        self._leaving_since: float | None = None
        self._unsent: dict[Key, Wish] = {}
        self._open: dict[Key, Writers] = {}
        self._done: dict[Save, int] = {}
        self._queue: deque[Wish] = deque()
        self._sending: dict[Key, float] = {}
        # When that began which ended last, however it ended.
        self._served: dict[Key, float] = {}
        self._troubles: dict[Key, _Trouble] = {}
        self._looked_at = float("-inf")
        self._look_at = float("-inf")

    @property
    def left(self) -> int:
        """How many files were not stored when it last looked, and are not since."""
        return len(self._unsent)

    @property
    def left_bytes(self) -> int:
        """How many bytes these have."""
        return sum(wish.found.state.size for wish in self._unsent.values())

    @property
    def is_in_a_hurry(self) -> bool:
        """True while somebody waits."""
        return bool(self._flushes) or self._leaving_since is not None

    @property
    def is_served(self) -> bool:
        """True where, since `leave`, all that there is has been stored, or tried."""
        since = self._leaving_since
        return since is not None and self._looked_at >= since and not self._left_since(since, self._unsent)

    def leave(self, now: float) -> None:
        """Nobody will ask for anything any more: everything is to be sent now, as it is."""
        if self._leaving_since is None:
            self._leaving_since = now
            self._hurry(now)

    def stay(self) -> None:
        """Takes `leave` back: somebody has come."""
        self._leaving_since = None

    def read(self, now: float) -> None:
        """Takes in what has been asked for."""
        for flush in self._wishes.read():
            self._finished.add(flush.writer)
            if not self._ledger.is_flushed(flush.token):
                self._flushes.append(_Waiting(flush, now))
                self._hurry(now)

    def look(self, now: float) -> None:
        """Looks which files there are and what of them is to be sent, if it is time to."""
        if now < self._look_at:
            return
        began = time.monotonic()
        self._looked_at = now
        self._open.clear()
        for waiting in self._flushes:
            waiting.has_others = self._has_others(waiting.flush.pid)
        wishes = self._find()
        self._watch.see({key: wish.found.state for key, wish in wishes.items()}, now)
        self._unsent = {key: wish for key, wish in wishes.items() if not self._is_settled(wish)}
        self._troubles = {key: trouble for key, trouble in self._troubles.items() if key in self._unsent}
        wall_ns = time.time_ns()
        ready = [
            wish
            for key, wish in self._unsent.items()
            if key not in self._sending and self._may_try(key, now) and self._is_ready(wish, now, wall_ns)
        ]
        ready.sort(key=lambda wish: (wish.found.state.size > SMALL_BYTES, wish.found.state.modified_ns))
        self._queue = deque(ready)
        took = time.monotonic() - began
        if self.is_in_a_hurry:
            self._look_at = now + max(_LOOK_SOON_S if self._queue else _HURRY_S, _HURRY_SHARE * took)
        else:
            self._look_at = now + max(_LOOK_SOON_S if self._unsent else _LOOK_S, _SHARE * took)

    def next(self, now: float, has_room_for: Callable[[int], bool]) -> Wish | None:
        """A file to send now, if there is one and room for its size; say below how that ended."""
        while self._queue and has_room_for(self._queue[0].found.state.size):
            wish = self._queue.popleft()
            if wish.key not in self._sending:
                self._sending[wish.key] = now
                return wish
        return None

    def later(self, wish: Wish) -> None:
        """It cannot be sent before the next look."""
        del self._sending[wish.key]

    def answer(self) -> None:
        """Tells whoever waits for a flush that all is done, where it is."""
        for waiting in list(self._flushes):
            if self._looked_at < waiting.since:
                continue
            unsent = {key: wish for key, wish in self._unsent.items() if self._concerns(waiting, wish)}
            if not self._left_since(waiting.since, unsent):
                self._flushes.remove(waiting)
                self._ledger.flushed(Flushed(waiting.flush.token, len(unsent)))

    # -- how it ended ----------------------------------------------------------------------------------------------

    def stored(self, wish: Wish, digest: str, now: float) -> None:
        """The collector has it."""
        self._settle(wish, digest)
        self._watch.sent(wish.key, now)
        self._troubles.pop(wish.key, None)

    def never(self, wish: Wish, problem: str, now: float) -> None:
        """This state of it will never be stored."""
        self._tell(wish, f"{wish.found.name} is not stored: {problem}")
        self._settle(wish, "")
        self._served[wish.key] = now

    def not_now(self, wish: Wish, problem: str, now: float) -> None:
        """It cannot be stored at the moment."""
        self._tell(wish, f"{wish.found.name} cannot be stored at the moment, and is tried again: {problem}")
        del self._sending[wish.key]
        self._served[wish.key] = now
        trouble = self._troubles.setdefault(wish.key, _Trouble())
        trouble.not_before = now + trouble.pause_s
        trouble.pause_s = min(2 * trouble.pause_s, _AGAIN_AT_MOST_S)

    def changed(self, wish: Wish, now: float) -> None:
        """It was not the same at the end as at the start."""
        del self._sending[wish.key]
        trouble = self._troubles.setdefault(wish.key, _Trouble())
        trouble.changes += 1
        if trouble.changes == _CHANGES:
            self._tell(
                wish,
                f"{wish.found.name} has changed while it was sent, {_CHANGES} times in a row: "
                "this state of it is not stored before it stays as it is for long enough",
            )
        if trouble.changes >= _CHANGES:
            self._served[wish.key] = now

    def gone(self, wish: Wish) -> None:
        """It is not there any more."""
        del self._sending[wish.key]
        self._unsent.pop(wish.key, None)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _hurry(self, now: float) -> None:
        self._look_at = now
        for trouble in self._troubles.values():
            trouble.not_before = now

    def _settle(self, wish: Wish, digest: str) -> None:
        self._ledger.settle(wish.key, wish.found.state, digest)
        self._served[wish.key] = self._sending.pop(wish.key)
        # Of another state, which it may be in by now, nothing has been said.
        there = self._unsent.get(wish.key)
        if there is not None and self._is_settled(there):
            del self._unsent[wish.key]

    def _tell(self, wish: Wish, text: str) -> None:
        if self._ledger.tell(Problem(wish.writer, text)):
            self._say(text)

    def _find(self) -> dict[Key, Wish]:
        """All files that are wanted now."""
        users = self._wishes.users
        anyone = User(users[0].writer if users else "", 0, users[-1].launch if users else self._about.launch)
        wishes: dict[Key, Wish] = {}
        self._add(wishes, walk(self._about.folder), Policy.LIVE, anyone, is_ours=False)
        for save, asked in self._wishes.saves.items():
            if self._is_due(save) and self._done.get(save) != asked:
                found: dict[Key, Wish] = {}
                self._add(found, expand(save.pattern, save.base), save.policy, save.user, is_ours=True)
                if save.policy is Policy.NOW and all(map(self._is_settled, found.values())):
                    self._done[save] = asked
                for key, wish in found.items():
                    wishes.setdefault(key, wish)
        return wishes

    def _add(
        self, wishes: dict[Key, Wish], findings: Iterator[Finding], policy: Policy, user: User, *, is_ours: bool
    ) -> None:
        for finding in findings:
            if isinstance(finding, Unfit):
                if self._ledger.tell(Problem(user.writer, finding.problem)):
                    self._say(finding.problem)
                continue
            wish = Wish(finding, policy, user.writer, user.launch, user.rank if is_ours else None)
            wishes.setdefault(wish.key, wish)

    def _is_due(self, save: Save) -> bool:
        return save.policy is not Policy.END or save.user.writer in self._finished or self._leaving_since is not None

    def _is_settled(self, wish: Wish) -> bool:
        if wish.policy is Policy.NOW:
            return self._ledger.was_settled(wish.key)
        return self._ledger.is_settled(wish.key, wish.found.state, by_inode=not wish.found.is_shared)

    def _may_try(self, key: Key, now: float) -> bool:
        trouble = self._troubles.get(key)
        return trouble is None or now >= trouble.not_before

    def _is_ready(self, wish: Wish, now: float, wall_ns: int) -> bool:
        hurries = [waiting.since for waiting in self._flushes if self._concerns(waiting, wish)]
        if self._leaving_since is not None:
            hurries.append(self._leaving_since)
        if any(self._watch.is_ready_at_flush(wish.key, wall_ns, now - since) for since in hurries):
            return True
        return self._watch.is_ready(wish.key, now, wall_ns, lambda: self._writers(wish))

    def _concerns(self, waiting: _Waiting, wish: Wish) -> bool:
        """Whether a flush waits for a file: what another process still writes is that one's to finish."""
        return not waiting.has_others or self._writers(wish) is not Writers.SOME

    def _writers(self, wish: Wish) -> Writers:
        """Whether somebody had a file open for writing when this was last looked at."""
        known = self._open.get(wish.key)
        if known is None:
            known = self._open[wish.key] = self._ask_for_writers(wish)
        return known

    def _ask_for_writers(self, wish: Wish) -> Writers:
        try:
            fd = open_file(wish.found.path, wish.found.root, self._owner)
        except (OSError, CannotSend, FileChanged):
            return Writers.NONE  # whoever sends it will meet the same, and say so
        try:
            return writers_of(fd)
        finally:
            os.close(fd)

    def _left_since(self, since: float, unsent: dict[Key, Wish]) -> bool:
        return any(self._served.get(key, float("-inf")) < since for key in unsent)
