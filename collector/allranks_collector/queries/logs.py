"""What the ranks printed: lines, merged by time."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb

from allranks_collector.folding import fold
from allranks_collector.queries.clocks import wrong_clocks
from allranks_collector.queries.line_order import LIKENESS, KnownOrder, LineFilter, LineOrders, StoredOrder
from allranks_collector.queries.runs import seconds
from allranks_collector.queries.select import BadQuery

if TYPE_CHECKING:
    from allranks_collector.queries.line_order import Key, Order
    from allranks_collector.queries.select import RunRef

    Line = dict[str, Any]
    # Rank, attempt and host of each.
    _Writers = dict[int, tuple[int, int, str]]

MAX_LINES = 10_000
# Of very long lines fewer come at once.
MAX_PAGE_BYTES = 32 * 1024 * 1024
STREAMS = {"stdout": 1, "stderr": 2}
NOTE = 0
_NAMES = {NOTE: "note", **{number: name for name, number in STREAMS.items()}}

# Beyond all lines, as a place.
_END: Key = (2**63 - 1, 2**63 - 1)

_OF_LINE = "writer, stream, line, time_ns, text"
# The span says nothing new, but of whole row groups it tells that they need not be read.
_AT = "FROM {lines} WHERE number BETWEEN $first AND $last AND number IN (SELECT unnest($numbers::BIGINT[]))"

# The lines in play of one stream stay together, in their order.
_OPEN = f"""
    SELECT 0, {_OF_LINE}, {LIKENESS} FROM {{lines}} WHERE {{condition}} AND text <> ''
    ORDER BY max(time_ns) OVER (PARTITION BY writer, stream), writer, stream, line"""

_STEP_TIME = """
    WITH mine AS (
        SELECT series, writer FROM series JOIN writers USING (writer) WHERE run = $run AND kind <> 'system'
            AND ($attempt IS NULL OR attempt = $attempt)
            AND ($ranks IS NULL OR list_contains($ranks::INTEGER[], rank))),
    logged AS (
        SELECT writer, time_ns FROM (
            SELECT series, time_ns, step FROM points UNION ALL SELECT series, time_ns, step FROM objects)
        JOIN mine USING (series) WHERE step = $step)
    SELECT quantile_disc(time_ns, 0.5) FROM {logged}"""


@dataclass(frozen=True)
class LogRequest:
    """Which lines are wanted, and which page of them: the newest `limit`, if no place is named.

    Attributes:
        ranks: None for all.
        stream: `stdout` or `stderr`, and notes beside them; None for all.
        attempt: a number, `all`, or None for the newest.
        grep: a regular expression (RE2), searched in the text without its colours.
        begin: the first time wanted, in Unix seconds.
        end: the first not wanted.
        odd: only lines that one rank alone has printed in its attempt; numbers in them are taken as equal.
        after: what an answer before gave as its `next`, or `0`, the beginning: on from there, by time.
        before: what an answer before gave as its `previous`: the last lines before it.
        since: what an answer before gave as its `newest`: what has arrived after it. So lines are followed that come
            in late, too.
        offset: from the line on that has so many before it.
        at: with the line of this number in the middle.
        step: with the time in the middle at which the chosen ranks logged this step.
        fold: identical lines of different ranks on the page are one.
        total: count all lines.
        limit: at most so many lines; of very long ones fewer.

    Raises:
        BadQuery: an argument makes no sense.
    """

    ranks: Collection[int] | None = None
    stream: str | None = None
    attempt: int | str | None = None
    grep: str | None = None
    begin: float | None = None
    end: float | None = None
    odd: bool = False
    after: str | None = None
    before: str | None = None
    since: int | None = None
    offset: int | None = None
    at: int | None = None
    step: int | None = None
    fold: bool = False
    total: bool = False
    limit: int = 1000

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= MAX_LINES:
            raise BadQuery("limit", self.limit, f"1 to {MAX_LINES}")
        if self.stream is not None and self.stream not in STREAMS:
            raise BadQuery("stream", self.stream, " or ".join(STREAMS))
        named = [name for name in _PLACES if getattr(self, name) is not None]
        if len(named) > 1:
            raise BadQuery(named[1], getattr(self, named[1]), f"no more than one place, and there is {named[0]}")
        for name in ("after", "before"):
            _key(name, getattr(self, name))
        for name in ("since", "offset", "at"):
            _bounded(name, getattr(self, name), 0)
        _bounded("step", self.step, -(2**63))
        begin, end = _ns("begin", self.begin), _ns("end", self.end)
        if begin is not None and end is not None and begin >= end:
            raise BadQuery("end", self.end, f"a time after the begin, {self.begin}")

    @property
    def is_by_position(self) -> bool:
        """Whether all lines must be counted for the answer."""
        return self.total or self.is_placed

    @property
    def is_placed(self) -> bool:
        """Whether the page has an offset."""
        return not (self.offset is self.at is self.step is None)


_PLACES = ("after", "before", "since", "offset", "at", "step")


@dataclass(frozen=True)
class _Page:
    """Lines by their keys, in order, and what is around them: places, None where nothing is.

    `newest` is up to where lines that arrived are here, and None if all are.
    """

    keys: list[Key]
    previous: Key | None = None
    next: Key | None = None
    offset: int | None = None
    newest: int | None = None


def list_logs(
    cursor: duckdb.DuckDBPyConnection, run: RunRef, wanted: LogRequest, orders: LineOrders | None = None
) -> dict[str, Any]:
    """Lines, merged by time.

    Args:
        cursor: of the database.
        run: whose ranks.
        wanted: which lines.
        orders: what earlier questions to this database have found out of the order of lines, and this one does.

    Returns:
        `lines`: each with number (None where it is open), time, rank, attempt, host, stream (or `note`, where lines
        were not kept), line (its number in its stream), text, and open: whether it may still go on. Those come last,
        where nothing else follows. Folded: also `ranks` and `count`.
        `next`: for `after`; None where nothing follows. `previous`: for `before`; None where nothing comes before.
        `newest`: for `since`, of all that this answer knows of.
        `total`: of all lines but the open ones; None if not asked for. `offset`: how many of them come before;
        None if neither offset, at nor step was asked for.

    Raises:
        BadQuery: the regular expression is none; the line or the step does not exist.
        TooManyLines: they cannot be counted or searched at once.
    """
    orders = LineOrders() if orders is None else orders
    attempt = _attempt(cursor, run, wanted.attempt)
    writers, filter_ = _resolve(cursor, run, wanted, attempt)
    # Asked first, and nothing beyond it is given: what arrives meanwhile comes with the next `since`, and only then.
    ((newest,),) = cursor.execute("SELECT coalesce(max(number), 0) FROM lines").fetchall()
    known: KnownOrder | None = None
    if wanted.is_by_position or filter_.odd or filter_.grep is not None:
        known = orders.order(cursor, filter_, newest)
    order: Order = StoredOrder(cursor, filter_, newest) if known is None else known
    middle = None if known is None else _middle(cursor, run, wanted, filter_, attempt, known)
    limit = wanted.limit
    page = _page(order, wanted, middle, limit)
    while limit > 1 and _bytes(cursor, page.keys) > MAX_PAGE_BYTES:
        limit //= 2
        page = _page(order, wanted, middle, limit)
    lines = _texts(cursor, writers, filter_, page.keys)
    if page.next is None and page.newest is None:
        lines += _open_lines(cursor, writers, filter_, orders, newest)
    return {
        "lines": fold(lines) if wanted.fold else lines,
        "next": _place(page.next),
        "previous": _place(page.previous),
        "newest": newest if page.newest is None else page.newest,
        "total": len(known) if known is not None and wanted.total else None,
        "offset": page.offset,
    }


def _page(order: Order, wanted: LogRequest, middle: int | None, limit: int) -> _Page:
    """The page that is asked for, of at most so many lines; `middle` is where it is to be, if anywhere."""
    if wanted.since is not None:
        return _arrived(order, wanted.since, limit)
    if wanted.after is not None:
        return _after(order, _key("after", wanted.after), limit)
    if isinstance(order, KnownOrder) and wanted.offset is not None:
        return _from_offset(order, wanted.offset, limit)
    if isinstance(order, KnownOrder) and middle is not None:
        return _from_offset(order, max(0, min(middle - limit // 2, len(order) - limit)), limit)
    return _before(order, _END if wanted.before is None else _key("before", wanted.before), limit)


def _arrived(order: Order, number: int, limit: int) -> _Page:
    keys = order.arrived(number, limit + 1)
    return _Page(sorted(keys[:limit]), newest=keys[limit - 1][1] if keys[limit:] else None)


def _after(order: Order, place: Key, limit: int) -> _Page:
    keys = order.after(place, limit + 1)
    # Where there is nothing, all up to this place comes before.
    first = keys[0] if keys else (place[0], min(place[1] + 1, _END[1]))
    return _Page(keys[:limit], first if order.has_before(first) else None, keys[limit - 1] if keys[limit:] else None)


def _before(order: Order, place: Key, limit: int) -> _Page:
    keys = order.before(place, limit + 1)
    last = keys[-1] if keys else (place[0], max(place[1] - 1, 0))
    follows = place != _END and bool(order.after(last, 1))
    return _Page(keys[-limit:], keys[-limit] if keys[limit:] else None, last if follows else None)


def _from_offset(order: KnownOrder, offset: int, limit: int) -> _Page:
    keys = order.keys(offset, limit)
    first = keys[0] if keys else _END
    follows = bool(keys) and offset + limit < len(order)
    return _Page(keys, first if order.has_before(first) else None, keys[-1] if follows else None, offset)


def _middle(
    cursor: duckdb.DuckDBPyConnection,
    run: RunRef,
    wanted: LogRequest,
    filter_: LineFilter,
    attempt: int | None,
    order: KnownOrder,
) -> int | None:
    """How many lines come before the place that a page is to have in its middle; None if it may be anywhere."""
    if wanted.at is not None:
        rows = cursor.execute(
            f"SELECT time_ns FROM {filter_.table('lines')} WHERE number = $number"
            " AND writer IN (SELECT writer FROM writers WHERE run = $run)",
            {"number": wanted.at, "run": run.run},
        ).fetchall()
        if not rows:
            raise BadQuery("at", wanted.at, "the number of a line of this run")
        return order.index((rows[0][0], wanted.at))
    if wanted.step is None:
        return None
    asked = {
        "step": wanted.step,
        "run": run.run,
        "attempt": attempt,
        "ranks": None if wanted.ranks is None else list(wanted.ranks),
    }
    ((time_ns,),) = cursor.execute(_STEP_TIME.format(logged=filter_.table("logged")), asked).fetchall()
    if time_ns is None:
        raise BadQuery("step", wanted.step, "a step that one of these ranks has logged")
    return order.index((time_ns, 0))


def _resolve(
    cursor: duckdb.DuckDBPyConnection, run: RunRef, wanted: LogRequest, attempt: int | None
) -> tuple[_Writers, LineFilter]:
    """Whose lines these are: rank, attempt and host of each writer of the attempt; and the filter."""
    rows = cursor.execute(
        "SELECT writer, rank, attempt, host FROM writers WHERE run = $run"
        " AND ($attempt IS NULL OR attempt = $attempt) ORDER BY writer",
        {"run": run.run, "attempt": attempt},
    ).fetchall()
    writers: _Writers = {writer: (rank, number, host) for writer, rank, number, host in rows}
    if wanted.grep:
        _check_pattern(cursor, wanted.grep)
    return writers, LineFilter(
        run=(run.id, run.created_ns),
        writers=tuple(writer for writer, of in writers.items() if wanted.ranks is None or of[0] in wanted.ranks),
        everyone=tuple((writer, of[0]) for writer, of in writers.items()),
        stream=None if wanted.stream is None else STREAMS[wanted.stream],
        grep=wanted.grep or None,
        begin_ns=_ns("begin", wanted.begin),
        end_ns=_ns("end", wanted.end),
        odd=wanted.odd,
        clocks=wrong_clocks(cursor, run),
    )


def _bytes(cursor: duckdb.DuckDBPyConnection, keys: list[Key]) -> int:
    """How long the texts of these lines are, all together."""
    if not keys:
        return 0
    at = _AT.format(lines="lines")
    ((size,),) = cursor.execute(f"SELECT coalesce(sum(strlen(text)), 0) {at}", _numbers(keys)).fetchall()
    return int(size)


def _texts(cursor: duckdb.DuckDBPyConnection, writers: _Writers, filter_: LineFilter, keys: list[Key]) -> list[Line]:
    """The lines at these places."""
    if not keys:
        return []
    at = _AT.format(lines=filter_.table("lines"))
    rows = cursor.execute(f"SELECT number, {_OF_LINE} {at}", _numbers(keys)).fetchall()
    found = {row[0]: row for row in rows}
    # One may have been removed meanwhile, with its run.
    return [_line(writers, found[number]) for _, number in keys if number in found]


def _numbers(keys: list[Key]) -> dict[str, Any]:
    """The parameters of _AT."""
    numbers = [number for _, number in keys]
    return {"first": min(numbers), "last": max(numbers), "numbers": numbers}


def _open_lines(
    cursor: duckdb.DuckDBPyConnection,
    writers: _Writers,
    filter_: LineFilter,
    orders: LineOrders,
    newest: int,
) -> list[Line]:
    """The lines that may still change."""
    condition, parameters = filter_.condition()
    rows = cursor.execute(_OPEN.format(condition=condition, lines=filter_.table("open_lines")), parameters).fetchall()
    if filter_.odd and rows:
        who = orders.who(cursor, filter_, newest, {row[-1] for row in rows})
        rows = [row for row in rows if len(who[row[-1]]) == 1]
    return [_line(writers, row, is_open=True) for row in rows]


def _line(writers: _Writers, row: Sequence[Any], *, is_open: bool = False) -> Line:
    number, writer, stream, line, time_ns, text, *_ = row
    rank, attempt, host = writers[writer]
    return {
        "number": None if is_open else number,
        "time": seconds(time_ns),
        "rank": rank,
        "attempt": attempt,
        "host": host,
        "stream": _NAMES.get(stream, str(stream)),
        "line": line,
        "text": text,
        "open": is_open,
    }


def _attempt(cursor: duckdb.DuckDBPyConnection, run: RunRef, wanted: int | str | None) -> int | None:
    """The attempt's number; None for all."""
    if wanted == "all":
        return None
    if wanted is not None:
        return int(wanted)
    ((newest,),) = cursor.execute("SELECT max(attempt) FROM writers WHERE run = ?", [run.run]).fetchall()
    return None if newest is None else int(newest)


def _check_pattern(cursor: duckdb.DuckDBPyConnection, pattern: str) -> None:
    try:
        cursor.execute("SELECT regexp_matches('', $1)", [pattern]).fetchall()
    except duckdb.InvalidInputException as error:
        reason = str(error).removeprefix("Invalid Input Error: ")
        raise BadQuery("grep", pattern, f"a regular expression as RE2 takes it ({reason})") from None


def _key(name: str, place: str | None) -> Key:
    """The time and the number that a place names."""
    match = re.fullmatch(r"(\d{1,19})(?:\.(\d{1,19}))?", place or "0", re.ASCII)
    key = (int(match[1]), int(match[2] or 0)) if match else (_END[0] + 1, 0)
    if max(key) > _END[0]:
        raise BadQuery(name, place, "0, or what an answer gave as next or previous")
    return key


def _place(key: Key | None) -> str | None:
    return None if key is None else f"{key[0]}.{key[1]}"


def _bounded(name: str, value: int | None, least: int) -> None:
    if value is not None and not least <= value < 2**63:
        raise BadQuery(name, value, f"a whole number from {least} on")


def _ns(name: str, time_s: float | None) -> int | None:
    """Unix seconds as ns."""
    if time_s is None:
        return None
    if not math.isfinite(time_s) or abs(time_s) >= 9e9:
        raise BadQuery(name, time_s, "a time in Unix seconds")
    # Of times of our own days a float holds the 238 ns or so: what an answer gave as a time is one to begin with.
    return round(time_s * 1e9) - 500
