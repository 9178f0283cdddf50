"""What happens now, for those who look: notes from the ingest and the health watch to the viewers' streams.

A note says that something changed, not what it is: viewers ask for that. So of several waiting notes about the same
thing the newest stands for all, and a slow viewer costs one entry per (topic, run) and never more than `MAX_WAITING`.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

# The least time between two notes of a topic about one run, to one viewer, in seconds.
INTERVAL_S: Mapping[str, float] = {"metrics": 0.25, "files": 0.25, "logs": 0.25}
# Notes that wait for one viewer; beyond it the oldest go.
MAX_WAITING = 4096
# Keys that one metrics note names; beyond it `keys` is None, which means: any.
MAX_KEYS = 256

Clock = Callable[[], float]


@dataclass(frozen=True)
class Note:
    """Something changed: `data` has at least `run`, the run's id."""

    topic: str
    data: Mapping[str, Any]


class Waiting:
    """The notes that wait for one viewer: merged, bounded, and held to their intervals. Pure: time is passed in."""

    def __init__(self) -> None:
        self._notes: dict[tuple[str, str], Note] = {}
        self._not_before: dict[tuple[str, str], float] = {}

    def put(self, topic: str, run: str, data: Mapping[str, Any]) -> None:
        """Add a note; one that waits already about the same is merged into it."""
        thing = (topic, run)
        old = self._notes.pop(thing, None)
        self._notes[thing] = Note(topic, _merged(old.data, data) if old else _bounded(data))
        if len(self._notes) > MAX_WAITING:
            del self._notes[next(iter(self._notes))]

    def take(self, now: float) -> Note | None:
        """The oldest note that may go now, if any; it waits no more."""
        for thing, note in self._notes.items():
            if self._not_before.get(thing, -math.inf) <= now:
                del self._notes[thing]
                self._start_interval(thing, now)
                return note
        return None

    def _start_interval(self, thing: tuple[str, str], now: float) -> None:
        interval = INTERVAL_S.get(thing[0])
        if interval is not None:
            if len(self._not_before) > MAX_WAITING:
                self._not_before = {other: time for other, time in self._not_before.items() if time > now}
            self._not_before[thing] = now + interval

    def due(self) -> float:
        """When the next note may go; infinity when none waits."""
        return min((self._not_before.get(thing, -math.inf) for thing in self._notes), default=math.inf)


def _bounded(data: Mapping[str, Any]) -> Mapping[str, Any]:
    keys = data.get("keys")
    return {**data, "keys": None} if keys is not None and len(keys) > MAX_KEYS else data


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> Mapping[str, Any]:
    """The new note, which also names the keys of the old; a step never goes back."""
    merged = {**old, **new}
    if "keys" in merged:
        sides = (old.get("keys", ()), new.get("keys", ()))
        merged["keys"] = None if None in sides else sorted({key for side in sides for key in side})
    steps = [side["last_step"] for side in (old, new) if side.get("last_step") is not None]
    if steps:
        merged["last_step"] = max(steps)
    return _bounded(merged)


class Viewer:
    """One open stream of notes."""

    def __init__(self, run: str | None, clock: Clock) -> None:
        self.run = run
        self._clock = clock
        self._waiting = Waiting()
        self._changed = anyio.Event()
        self._closed = False

    def put(self, topic: str, run: str, data: Mapping[str, Any]) -> None:
        if self.run is None or self.run == run:
            self._waiting.put(topic, run, data)
            self._changed.set()

    def close(self) -> None:
        self._closed = True
        self._changed.set()

    async def receive(self) -> Note:
        """The next note, as soon as there is one and its interval has passed.

        Raises:
            anyio.EndOfStream: the hub has been closed.
        """
        while not self._closed:
            now = self._clock()
            note = self._waiting.take(now)
            if note is not None:
                return note
            with anyio.move_on_after(self._waiting.due() - now):
                await self._changed.wait()
            self._changed = anyio.Event()
        raise anyio.EndOfStream


class Hub:
    """Hands notes to all viewers. All calls come from the event loop's thread."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._viewers: set[Viewer] = set()
        self._closed = False

    @property
    def viewers(self) -> int:
        """How many streams are open."""
        return len(self._viewers)

    def publish(self, topic: str, run_id: str, data: Mapping[str, Any]) -> None:
        """Tell everybody who watches this run, or all runs. Never waits.

        Args:
            topic: runs, ranks, metrics, events, files, logs or stacks.
            run_id: the run's id.
            data: what the viewer gets, as JSON; `run` is added. metrics: last_step, and keys (those that moved).
        """
        for viewer in self._viewers:
            viewer.put(topic, run_id, {"run": run_id, **data})

    @contextlib.asynccontextmanager
    async def subscribe(self, run: str | None = None) -> AsyncGenerator[Viewer]:
        """A stream of the notes about one run, or about all of them (None), from now on."""
        viewer = Viewer(run, self._clock)
        if self._closed:
            viewer.close()
        self._viewers.add(viewer)
        try:
            yield viewer
        finally:
            self._viewers.discard(viewer)

    def close(self) -> None:
        """End all streams, and each later one at once: the service is going."""
        self._closed = True
        for viewer in self._viewers:
            viewer.close()
