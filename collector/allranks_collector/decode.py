"""Decoding: the records of a batch become rows and points.

A training loop makes thousands of METRICS records of one keyset in a row, all of the same size, so they are taken as
one array where they are many; all else goes record by record.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable
from typing import Any
from zlib import crc32

import numpy as np

from allranks_bus import events
from allranks_bus.errors import ProtocolError
from allranks_bus.events import MAX_NAME_BYTES, METRICS_HEAD, METRICS_OVERHEAD_BYTES, STEP_TAG, Kind
from allranks_bus.limits import MAX_SECTION_CHARS, MAX_SECTIONS, MAX_SURROUNDINGS_BYTES
from allranks_bus.records import HEADER, MAX_PAYLOAD_BYTES
from allranks_collector import error_file
from allranks_collector.books import WriterBook
from allranks_collector.ledger import Ledger
from allranks_collector.line_rows import LineBuffer
from allranks_collector.rows import PointBuffer, jsonable
from allranks_collector.stack_dumps import checked_threads, is_token

# Below this many equal records in a row, arrays cost more than they save.
_BLOCK_RECORDS = 16
_FIXED = struct.Struct(">3sQcqBIBH")
_MIN_STEP, _MAX_STEP = -(2**63), 2**63 - 1
_MAX_TIME = 2**63
_MAX_DROPPED = 2**62
_MAX_ALERT_CHARS = 16_384
_MAX_ERROR_FILE_BYTES = 65_535
_STREAMS = (1, 2)
# The stream of notes of ours.
_NOTE = 0
_MAX_REASON_CHARS = 200
_LATE_NS = 60_000_000_000


class BrokenRecord(ProtocolError):
    """A record that cannot be taken; what is before it has been."""


class Decoder:
    """Turns records into what the ledger and the points take in.

    Attributes:
        points, lines: filled by `batch`.
        closed: the writers that closed, with the map of their CLOSE record.
        alerts: what programs want people told: writer, time, title, text and level.
        answered: the writers, by number, that told their stacks, with the token of who asked.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.points = PointBuffer()
        self.lines = LineBuffer(ledger.final_lines)
        self.closed: list[tuple[WriterBook, dict[str, Any]]] = []
        self.alerts: list[tuple[WriterBook, int, dict[str, str]]] = []
        self.answered: list[tuple[int, str]] = []
        self._ledger = ledger
        self._handlers: dict[int, Callable[[WriterBook, list[Any]], None]] = {
            Kind.OPEN: self._open,
            Kind.METRICS: self._metrics,
            Kind.KEYSET: self._keyset,
            Kind.LOG: self._log,
            Kind.SYSTEM: self._system,
            Kind.CONFIG: self._config,
            Kind.SUMMARY: self._summary,
            Kind.DEFINE: self._define,
            Kind.CLOSE: self._close,
            Kind.DROPPED: self._dropped,
            Kind.CONSOLE: self._console,
            Kind.ALERT: self._alert,
            Kind.STACKS: self._stacks,
            Kind.SECTIONS: self._sections,
            Kind.SURROUNDINGS: self._surroundings,
            Kind.ERROR_FILE: self._error_file,
        }

    def batch(self, book: WriterBook, body: bytes, count: int, skip: int) -> int:
        """Takes in the `count` records of `body` but for the first `skip`; returns how many of all it has passed.

        Fewer than `count` where a record is broken: nothing from there on has been taken.
        """
        view = memoryview(body)
        at = passed = 0
        try_block_at = skip
        while passed < count:
            if passed >= try_block_at and count - passed >= _BLOCK_RECORDS:
                taken, at = self._block(book, body, at, count - passed)
                if taken:
                    passed += taken
                    continue
                try_block_at = passed + _BLOCK_RECORDS
            payload = _payload(view, at)
            if payload is None:
                return passed
            if passed >= skip:
                try:
                    self._record(book, payload)
                except ProtocolError:
                    return passed
            at += 8 + len(payload)
            passed += 1
        return passed

    def succeed(self, book: WriterBook) -> None:
        """Takes note that this console has begun: those before it of the same writer, killed perhaps, have ended."""
        for other in self._ledger.consoles_before(book):
            for number, stream in other.streams.items():
                self.lines.settle(other.run.id, (other.writer, number), stream)

    def pass_over(self, book: WriterBook, time_ns: int) -> None:
        """Notes the record at the writer's position as one that can never be taken."""
        self._ledger.event(book, time_ns, "broken", {"seq": book.next_seq})

    def _block(self, book: WriterBook, body: bytes, at: int, most: int) -> tuple[int, int]:
        """Takes equal METRICS records from `at` on as one array: how many (0: it does not pay), and where next."""
        first = _payload(memoryview(body), at)
        if first is None or len(first) < METRICS_OVERHEAD_BYTES or bytes(first[:3]) != METRICS_HEAD:
            return 0, at
        size = 8 + len(first)
        most = min(most, (len(body) - at) // size)
        if most < _BLOCK_RECORDS:
            return 0, at
        rows = np.frombuffer(body, np.uint8, most * size, at).reshape(most, size)
        if not (rows[:_BLOCK_RECORDS, 28:36] == rows[0, 28:36]).all():  # most often: another keyset in between
            return 0, at
        same = _alike(rows, 0, 4) & _alike(rows, 8, 11) & _alike(rows, 19, 20) & _alike(rows, 28, 36)
        count = most if same.all() else int(same.argmin())
        if count < _BLOCK_RECORDS:
            return 0, at
        _, _, step_tag, _, _, keyset, _, nbytes = _FIXED.unpack_from(body, at + 8)
        known = book.keysets.get(keyset)
        if known is None or step_tag != STEP_TAG or nbytes != size - 8 - METRICS_OVERHEAD_BYTES:
            return 0, at
        if not nbytes or nbytes != 8 * len(known.series):
            return 0, at
        view = memoryview(body)
        checksums = [crc32(view[begin : begin + size - 8]) for begin in range(at + 8, at + 8 + count * size, size)]
        rows = rows[:count]
        times = _column(rows, 11, 19, ">u8")
        if _column(rows, 4, 8, "<u4").tolist() != checksums or int(times.max()) >= _MAX_TIME:
            return 0, at
        steps = _column(rows, 20, 28, ">i8").astype(np.int64)
        values = np.ascontiguousarray(rows[:, 36:]).view(">f8").astype(np.float64)
        self.points.add_block(known.series, steps, times.astype(np.int64), values)
        book.last_step, book.last_ns = int(steps[-1]), int(times[-1])
        return count, at + count * size

    def _record(self, book: WriterBook, payload: memoryview) -> None:
        event = events.unpack(payload)
        # What was on a device when it was logged comes late: the writer is beyond it, and no clock has been set back.
        if event[0] != Kind.LOG or not 0 < book.last_ns - event[1] < _LATE_NS:
            book.last_ns = event[1]
        handler = self._handlers.get(event[0])
        try:
            if handler is None:
                self._ledger.event(book, event[1], "unknown", {"kind": event[0], "fields": event[2:]})
            else:
                handler(book, event)
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
            raise BrokenRecord(f"a record of kind {event[0]} cannot be understood: {error}") from error

    def _open(self, book: WriterBook, event: list[Any]) -> None:
        """The writer is known by now; each of its segments says so again."""
        self._ledger.open_again(book, events.check_identity(event[2]))

    def _metrics(self, book: WriterBook, event: list[Any]) -> None:
        _, time_ns, step, keyset, values = event
        known = book.keysets.get(keyset)
        if known is None:
            raise BrokenRecord(f"the keyset {keyset!r} has not been defined")
        if len(values) != 8 * len(known.series):
            raise BrokenRecord(f"{len(values)} bytes are not the values of {len(known.series)} names")
        book.last_step = _step(step)
        self.points.add(known.series_bytes, step, time_ns, values)

    def _keyset(self, book: WriterBook, event: list[Any]) -> None:
        _, _, keyset, names = event
        if type(keyset) is not int or not 0 <= keyset < 2**32 or not isinstance(names, list):
            raise BrokenRecord("a KEYSET has a number and a list of names")
        if not self._ledger.define(book, keyset, [_name(name) for name in names]):
            raise BrokenRecord("the writer has too many names")

    def _log(self, book: WriterBook, event: list[Any]) -> None:
        _, time_ns, step, fields = event
        # All that may be wrong is looked at before anything is taken: a broken record comes again.
        for key in fields:
            _name(key)
        objects = {
            key: json.dumps(jsonable(value)) for key, value in fields.items() if not isinstance(value, int | float)
        }
        step = _step(step)
        if time_ns == book.last_ns:
            book.last_step = step
        self._numbers(book, step, time_ns, fields, "metric")
        for key, body in objects.items():
            series = self._ledger.series(book, key, "object")
            if series is not None:
                self._ledger.new.objects.append((series, step, time_ns, body))

    def _system(self, book: WriterBook, event: list[Any]) -> None:
        _, time_ns, step, fields = event
        self._numbers(book, _step(step), time_ns, fields, "system")

    def _numbers(self, book: WriterBook, step: int, time_ns: int, fields: dict[str, Any], kind: str) -> None:
        series: list[int] = []
        numbers: list[float] = []
        for key, value in fields.items():
            if isinstance(value, int | float):
                number = self._ledger.series(book, _name(key), kind)
                if number is not None:
                    series.append(number)
                    numbers.append(float(value))
        if series:
            packed = struct.pack(f">{len(numbers)}d", *numbers)
            self.points.add(np.array(series, np.int32).tobytes(), step, time_ns, packed)

    def _config(self, book: WriterBook, event: list[Any]) -> None:
        self._ledger.new.config.extend(_settings(book, event))

    def _summary(self, book: WriterBook, event: list[Any]) -> None:
        self._ledger.new.summary.extend(_settings(book, event))

    def _define(self, book: WriterBook, event: list[Any]) -> None:
        _, time_ns, name, how = event
        row = (book.run.run, time_ns, _name(name), _text(how.get("step_metric")), _text(how.get("summary")))
        self._ledger.new.definitions.append(row)

    def _close(self, book: WriterBook, event: list[Any]) -> None:
        end = event[2] if isinstance(event[2], dict) else {}
        if not book.is_console:
            self._ledger.event(book, event[1], "closed", end)
        for number, stream in book.streams.items():
            self.lines.end(book.run.id, (book.writer, number), stream)
        book.streams.clear()
        book.is_closed = True
        self.closed.append((book, end))

    def _dropped(self, book: WriterBook, event: list[Any]) -> None:
        records = event[2]["records"]
        if type(records) is not int or not 0 <= records <= _MAX_DROPPED:
            raise BrokenRecord("a DROPPED record counts records")
        self._ledger.event(book, event[1], "dropped", event[2])
        book.dropped = min(book.dropped + records, _MAX_DROPPED)
        if book.is_console:
            self._note(book, event[1], event[2])

    def _note(self, book: WriterBook, time_ns: int, dropped: dict[str, Any]) -> None:
        """Says in its place what of a console was not kept."""
        run, note = book.run.id, f"[{not_kept(dropped)}]\n".encode()
        if dropped.get("lines") != 0:
            # Else the end of a line would seem to follow the beginning of another.
            for number, stream in book.streams.items():
                self.lines.interrupt(run, (book.writer, number), stream)
        self.lines.add(run, (book.writer, _NOTE), self._ledger.stream(book, _NOTE), time_ns, note)

    def _console(self, book: WriterBook, event: list[Any]) -> None:
        _, time_ns, stream, chunk = event
        if stream not in _STREAMS or not isinstance(chunk, bytes):
            raise BrokenRecord("a CONSOLE record has a stream, 1 or 2, and bytes")
        self.lines.add(book.run.id, (book.writer, stream), self._ledger.stream(book, stream), time_ns, chunk)

    def _alert(self, book: WriterBook, event: list[Any]) -> None:
        body = {key: str(event[2][key])[:_MAX_ALERT_CHARS] for key in ("title", "text", "level") if key in event[2]}
        self._ledger.event(book, event[1], "alert", body)
        self.alerts.append((book, event[1], body))

    def _stacks(self, book: WriterBook, event: list[Any]) -> None:
        token, threads = str(event[2]["token"]), checked_threads(event[2]["threads"])
        if not is_token(token):
            raise BrokenRecord(f"stacks are told under the name that they were asked for, not {token!r:.60}")
        answer = json.dumps({"threads": threads})
        self._ledger.new.stacks.append((book.run.run, book.writer, book.rank, token, time.time_ns(), "asked", answer))
        self.answered.append((book.writer, token))

    def _sections(self, book: WriterBook, event: list[Any]) -> None:
        _, time_ns, window = event
        begin, end, seconds = _step(window["from"]), _step(window["to"]), _seconds(window["seconds"])
        rows: list[tuple[Any, ...]] = []
        for name, (count, spent, longest) in window["sections"].items():
            if type(count) is not int or not 0 <= count < _MAX_DROPPED:
                raise BrokenRecord("a SECTIONS record counts how often each was entered")
            figures = (_name(name)[:MAX_SECTION_CHARS], count, _seconds(spent), _seconds(longest))
            rows.append((book.writer, time_ns, begin, end, seconds, *figures))
        if len(rows) > MAX_SECTIONS:
            raise BrokenRecord(f"a SECTIONS record has at most {MAX_SECTIONS} sections")
        self._ledger.new.sections.extend(rows)

    def _surroundings(self, book: WriterBook, event: list[Any]) -> None:
        _, time_ns, told = event
        body = json.dumps(jsonable(told))
        if not isinstance(told, dict) or len(body) > MAX_SURROUNDINGS_BYTES:
            raise BrokenRecord(f"a SURROUNDINGS record has a map of at most {MAX_SURROUNDINGS_BYTES:,} bytes")
        self._ledger.new.surroundings.append((book.writer, time_ns, body))

    def _error_file(self, book: WriterBook, event: list[Any]) -> None:
        _, time_ns, content = event
        if not isinstance(content, bytes) or len(content) > _MAX_ERROR_FILE_BYTES:
            raise BrokenRecord(f"an ERROR_FILE record has at most {_MAX_ERROR_FILE_BYTES:,} bytes")
        told = error_file.parse(content)
        if told is not None:
            self._ledger.event(book, time_ns, "error_file", told)


def opening_of(body: bytes) -> list[Any] | None:
    """The OPEN event at the start of a batch's records, or None where they begin with something else."""
    payload = _payload(memoryview(body), 0)
    if payload is None:
        return None
    try:
        event = events.unpack(payload)
    except ProtocolError:
        return None
    return event if event[0] == Kind.OPEN and len(event) >= 3 else None


def not_kept(dropped: dict[str, Any]) -> str:
    """What of a console was not kept, and why, in words: `12,345 lines (1.2 MB) were not kept: disk full`."""

    def number(name: str) -> int:
        value = dropped.get(name)
        return value if type(value) is int and value > 0 else 0

    lines, size = number("lines"), number("bytes")
    if lines:
        what = f"{lines:,} line{'s' if lines > 1 else ''}" + (f" ({_amount(size)})" if size else "")
    else:
        what = _amount(size) if size else f"{number('records'):,} records"
    verb = "was" if lines == 1 else "were"
    reason = " ".join(str(dropped.get("reason") or "").split())[:_MAX_REASON_CHARS]
    return f"{what} {verb} not kept" + (f": {reason}" if reason else "")


def _amount(size: int) -> str:
    """Bytes as people say them."""
    for unit, of_unit in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= of_unit:
            return f"{size / of_unit:,.1f} {unit}"
    return f"{size} bytes"


def _payload(view: memoryview, at: int) -> memoryview | None:
    """The payload of the record at `at`; None where it is cut short, too long, or fails its checksum."""
    if at + 8 > len(view):
        return None
    length, checksum = HEADER.unpack_from(view, at)
    payload = view[at + 8 : at + 8 + length]
    if not 0 < length <= MAX_PAYLOAD_BYTES or len(payload) != length or crc32(payload) != checksum:
        return None
    return payload


def _alike(rows: Any, begin: int, end: int) -> Any:
    """Which rows have the same bytes there as the first."""
    return (rows[:, begin:end] == rows[0, begin:end]).all(axis=1)


def _column(rows: Any, begin: int, end: int, kind: str) -> Any:
    return np.ascontiguousarray(rows[:, begin:end]).view(kind).reshape(-1)


def _settings(book: WriterBook, event: list[Any]) -> list[tuple[Any, ...]]:
    """The rows of a CONFIG or SUMMARY record."""
    return [
        (book.run.run, book.writer, event[1], _name(key), json.dumps(jsonable(value)))
        for key, value in event[2].items()
    ]


def _step(step: Any) -> int:
    if type(step) is not int or not _MIN_STEP <= step <= _MAX_STEP:
        raise BrokenRecord(f"a step is a whole number of 64 bits, not {step!r:.60}")
    return step


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name or len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        raise BrokenRecord(f"a name is text of 1 to {MAX_NAME_BYTES} bytes, not {name!r:.60}")
    return name


def _seconds(value: Any) -> float:
    if not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise BrokenRecord(f"seconds are a number, 0 or more, not {value!r:.60}")
    return float(value)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
