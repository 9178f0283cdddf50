"""A rank's log: the spool, and the shortest way into it for a training loop's numbers.

`metrics` is the hot path of `run.log()`. Names are most of an event's bytes, so a list of names gets a number once
(a KEYSET record) and each event carries that number and its values, laid out by one `struct` call which also checks
that each is a number. Everything that does not fit this takes `Run`'s slow path.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections import deque
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from time import time_ns
from typing import Any
from zlib import crc32

from allranks._pending import Pending
from allranks._warnings import warn_once
from allranks_bus import events
from allranks_bus.errors import ProtocolError
from allranks_bus.events import METRICS_HEAD, METRICS_OVERHEAD_BYTES, STEP_TAG, Kind
from allranks_bus.records import HEADER
from allranks_bus.spool import SpoolWriter

# A program that makes new names at every step would fill memory with keysets; beyond this many, LOG serves.
MAX_KEYSETS = 1024

# `struct` asks any value for its `__float__`. That of a tensor may wait for a device, or warn of a gradient, so where
# a library of tensors is loaded only these types go the short way.
_ARE_PLAIN = frozenset((float, int, bool)).issuperset
_TENSOR_LIBRARIES = ("torch", "jax", "tensorflow", "cupy")

_Keyset = tuple[Callable[..., bytes], bytes, int, int]

# Bound once: `metrics` runs in 2 µs, and an attribute costs 20 ns.
_header = HEADER.pack


class RankLog(SpoolWriter):
    """A `SpoolWriter` that takes metrics.

    Args:
        root, name, cap_bytes: as for `SpoolWriter`.
        identity: the map of the OPEN record.

    Attributes:
        step: the newest step; the next one without a number is one more.
        may_meet_tensors: a library of tensors is loaded; `look_for_tensors` keeps it right.
        pending: values that are still on a device.
    """

    def __init__(self, root: Path, name: bytes, identity: Mapping[str, Any], *, cap_bytes: int) -> None:
        self.step = -1
        self.may_meet_tensors = False
        self.look_for_tensors()
        self.pending = Pending(self)
        # Steps by themselves come from a counter, which no two threads can get the same number from; it is made anew
        # after a step that the program gave.
        self._next_step = count().__next__
        self._is_stepped = False
        # Taken from the counter for events that turned out not to go the short way: `next_step` gives them out again.
        self._spare_steps: deque[int] = deque()
        self._identity = dict(identity)
        self._keyset_numbers = 0
        self._reported_drops = 0
        # Replaced at each new segment, which defines the keysets that it uses anew.
        self._keysets: dict[tuple[str, ...], _Keyset] = {}
        super().__init__(root, name, self._open_segment, cap_bytes=cap_bytes)

    def metrics(self, data: Mapping[str, float], step: int | None, is_counted: bool = False) -> None:
        """Appends a METRICS record; numbers of any type that `float()` takes.

        Args:
            step: None for the counter's next.
            is_counted: `step` is from `next_step`, and not the program's own.

        Raises:
            KeyError: these names are not defined as a keyset: `define` them, or pack otherwise.
            Exception: a value is not a number, or the step is not an integer; nothing was appended.
        """
        keysets = self._keysets
        values = data.values()  # first: what is no mapping may be a generator without an end
        pack, tag, length, size = keysets[tuple(data)]
        if self.may_meet_tensors and not _ARE_PLAIN(map(type, values)):
            raise TypeError("a value may be a tensor")
        if step is None:
            if self._is_stepped:
                self._count_on()
            step = self._next_step()
            is_counted = True
        elif not is_counted:
            self._is_stepped = True
        try:
            payload = pack(METRICS_HEAD, time_ns(), STEP_TAG, step, tag, *values)
        except BaseException:
            if is_counted:
                self._spare_steps.append(step)
            raise
        # numpy and torch have whole numbers of their own, which `struct` takes, and msgpack and `count` do not.
        self.step = step if type(step) is int else int(step)
        record = _header(length, crc32(payload)) + payload
        with self._lock:
            if keysets is not self._keysets:  # a new segment has begun since, which does not know the keyset yet
                self._metrics_again(data, step, is_counted)
                return
            try:
                if os.write(self._fd, record) != size:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except BaseException as error:
                if self._fd >= 0:
                    self._fd, self._torn_fd = -1, self._fd
                self._recover(record, error)
                return
            self._count += 1
            self._size = end = self._size + size
            if end >= self._check_at:
                self._checkpoint()

    def append_ours(self, payload: bytes) -> bool:
        """Appends a record that the SDK makes by itself: one that comes after the log's end is missed by nobody."""
        with self._lock:
            return not self._closed and self.append(payload)

    def append_fields(self, time_ns: int, step: int, fields: Mapping[str, Any]) -> None:
        """Appends LOG records with `fields`, in as many as their size needs; `step` is not taken note of.

        Raises:
            ProtocolError: one of them alone is too large.
        """
        if not fields:
            return
        try:
            self.append(events.pack(Kind.LOG, time_ns, step, dict(fields)))
        except ProtocolError:
            items = list(fields.items())
            if len(items) == 1:
                raise
            half = len(items) // 2
            self.append_fields(time_ns, step, dict(items[:half]))
            self.append_fields(time_ns, step, dict(items[half:]))

    def report_drops(self) -> None:
        """Records how many events could not be kept since it was last recorded, and warns of the first of them."""
        if self.refused == self._reported_drops:
            return
        problem = self.problem or "the spool could not take them"
        warn_once("drops", f"events are dropped: {problem} ({self.directory}); training goes on")
        with self._lock:
            refused = self.refused
            if refused == self._reported_drops or self.is_suspended:
                return
            drops = {"records": refused - self._reported_drops, "reason": problem}
            if self.append(events.pack(Kind.DROPPED, time_ns(), drops)):
                self._reported_drops = refused

    def look_for_tensors(self) -> None:
        """Sees whether a library of tensors has been loaded meanwhile; called now and then, not by the hot path."""
        self.may_meet_tensors = any(name in sys.modules for name in _TENSOR_LIBRARIES)

    def next_step(self) -> int:
        """The step of an event that was given none, and does not go the short way."""
        with contextlib.suppress(IndexError):
            return self._spare_steps.pop()
        if self._is_stepped:
            self._count_on()
        return self._next_step()

    def follow(self, step: int, is_counted: bool) -> None:
        """Takes note of the step of an event that is packed otherwise; `is_counted` as for `metrics`."""
        self.step = step
        if not is_counted:
            self._is_stepped = True

    def define(self, names: tuple[str, ...]) -> bool:
        """Makes `names` a keyset; False where there are too many of them, and LOG must serve."""
        with self._lock:
            keysets = self._keysets
            if names in keysets:
                return True
            # A spool that takes nothing at the moment must not count the refused event twice.
            if len(keysets) >= MAX_KEYSETS or not 0 < len(names) <= events.MAX_FAST_VALUES or self._fd < 0:
                return False
            number = self._keyset_numbers
            self._keyset_numbers = number + 1
            if not self.append(events.pack(Kind.KEYSET, time_ns(), number, names)):
                return False
            if keysets is not self._keysets:  # that record was the last of its segment
                return self.define(names)
            width = len(names)
            length = METRICS_OVERHEAD_BYTES + 8 * width
            keysets[names] = (events.metrics_packer(width), events.values_tag(number, width), length, length + 8)
            return True

    def _count_on(self) -> None:
        with self._lock:
            if self._is_stepped:
                self._next_step = count(self.step + 1).__next__
                self._is_stepped = False

    def _metrics_again(self, data: Mapping[str, float], step: int, is_counted: bool) -> None:
        names = tuple(data)
        if self.define(names):
            self.metrics(data, step, is_counted)
        else:
            numbers = {name: float(value) for name, value in data.items()}
            self.append(events.pack(Kind.LOG, time_ns(), step, numbers))

    def _open_segment(self) -> bytes:
        self._keysets = {}
        return events.pack(Kind.OPEN, time_ns(), self._identity)
