"""The order of lines by time: which of them come before, behind, or in the middle of others, without their texts.

Only narrow columns are read; and texts once, for a regular expression or `odd`. Two things know the order:

- `StoredOrder` asks the database each time: cheap for the next lines from a place on, at any number of lines.
- `KnownOrder` holds it: it also tells the line at an offset, and how many there are. `LineOrders` keeps a few,
  adding the lines that have come in since.

A line's place is its key: time in ns, in the collector's clock, and number; these are given in the order of arrival.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

import numpy as np

from allranks_collector.queries.clocks import in_one_clock
from allranks_collector.queries.select import TooMuch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import duckdb
    from numpy.typing import NDArray

    from allranks_collector.queries.clocks import Offsets

    Key = tuple[int, int]

# What one question may hold in memory: 16 bytes a line.
MAX_ORDERED_LINES = 20_000_000
# What is kept of the orders, and of the likenesses, of the last questions: 300 MB at most, for 8 million lines.
KEPT_LINES = 8_000_000
KEPT_ORDERS = 16

# Colours alone are left of what moved the cursor: they are no part of what was said.
PLAIN = r"CASE WHEN contains(text, chr(27)) THEN regexp_replace(text, '\x1b\[[0-9;:]*m', '', 'g') ELSE text END"
# Lines that differ in numbers alone are the same line.
LIKENESS = rf"hash(regexp_replace({PLAIN}, '[-+]?[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?', '0', 'g'))"


class TooManyLines(TooMuch):
    """More lines than can be put in order at once."""

    def __init__(self) -> None:
        Exception.__init__(
            self,
            f"more than {MAX_ORDERED_LINES:,} lines: choose ranks, a stream or a time, or go through them with after",
        )


@dataclass(frozen=True)
class LineFilter:
    """Which lines are meant.

    Attributes:
        run: its id and when it was created: numbers may come to mean another when it is removed.
        writers: those that are chosen.
        everyone: the writers that `odd` compares with, and the rank of each: the whole attempt.
        stream: 1 or 2; notes (0) stand in either. None for all.
        grep: a regular expression on the text without colours.
        begin_ns: the first time that is wanted.
        end_ns: the first that is not.
        odd: only those that one rank alone has printed.
        clocks: those of the writers that are wrong.
    """

    run: tuple[str, int]
    writers: tuple[int, ...]
    everyone: tuple[tuple[int, int], ...]
    stream: int | None = None
    grep: str | None = None
    begin_ns: int | None = None
    end_ns: int | None = None
    odd: bool = False
    clocks: Offsets = ()

    def table(self, name: str) -> str:
        """A table of lines, with all times in one clock."""
        return in_one_clock(name, self.clocks)

    def condition(self) -> tuple[str, dict[str, Any]]:
        """As SQL on the columns of `lines`, less `odd`; with its parameters."""
        parts = {
            "writer IN (SELECT unnest($writers::INTEGER[]))": ("writers", list(self.writers)),
            "stream IN (0, $stream)": ("stream", self.stream),
            "time_ns >= $begin_ns": ("begin_ns", self.begin_ns),
            "time_ns < $end_ns": ("end_ns", self.end_ns),
            f"regexp_matches({PLAIN}, $grep)": ("grep", self.grep),
        }
        given = {sql: of for sql, of in parts.items() if of[1] is not None}
        return " AND ".join(given), dict(given.values())


_BEFORE = "time_ns <= $time_ns AND (time_ns < $time_ns OR number < $number)"


class Order(Protocol):
    """Lines by time, up to the newest number that a question knows of."""

    def after(self, key: Key, count: int) -> list[Key]:
        """The first lines behind a place, at most `count`."""
        ...

    def before(self, key: Key, count: int) -> list[Key]:
        """The last lines before a place, at most `count`; in order."""
        ...

    def has_before(self, key: Key) -> bool:
        """Whether any line stands before a place."""
        ...

    def arrived(self, number: int, count: int) -> list[Key]:
        """The first lines with a greater number, at most `count`; by number."""
        ...


class StoredOrder:
    """The order, as the database finds it when it is asked."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, filter_: LineFilter, newest: int) -> None:
        self._cursor = cursor
        condition, parameters = filter_.condition()
        self._from = f"FROM {filter_.table('lines')} WHERE {condition} AND number <= $newest"
        self._parameters = {**parameters, "newest": newest}

    def after(self, key: Key, count: int) -> list[Key]:
        # The first condition says nothing new, but of whole row groups it tells that they need not be read.
        where = "time_ns >= $time_ns AND (time_ns > $time_ns OR number > $number)"
        return self._keys(f"{where} ORDER BY time_ns, number", count, time_ns=key[0], number=key[1])

    def before(self, key: Key, count: int) -> list[Key]:
        return self._keys(f"{_BEFORE} ORDER BY time_ns DESC, number DESC", count, time_ns=key[0], number=key[1])[::-1]

    def has_before(self, key: Key) -> bool:
        return bool(self._keys(_BEFORE, 1, time_ns=key[0], number=key[1]))

    def arrived(self, number: int, count: int) -> list[Key]:
        return self._keys("number > $number ORDER BY number", count, number=number)

    def _keys(self, rest: str, count: int, **place: int) -> list[Key]:
        parameters = {**self._parameters, **place, "count": count}
        sql = f"SELECT time_ns, number {self._from} AND {rest} LIMIT $count"
        return self._cursor.execute(sql, parameters).fetchall()


@dataclass(frozen=True)
class KnownOrder:
    """The order as columns: `time_ns` and `number`, both int64, in order."""

    time_ns: NDArray[np.int64]
    number: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.number)

    def keys(self, first: int, count: int) -> list[Key]:
        """The lines from this offset on."""
        part = slice(max(0, first), max(0, first + count))
        return list(zip(self.time_ns[part].tolist(), self.number[part].tolist(), strict=True))

    def index(self, key: Key, side: Literal["left", "right"] = "left") -> int:
        """How many lines stand before a place; with `right`, or at it."""
        first, last = np.searchsorted(self.time_ns, key[0], "left"), np.searchsorted(self.time_ns, key[0], "right")
        return int(first + np.searchsorted(self.number[first:last], key[1], side))

    def after(self, key: Key, count: int) -> list[Key]:
        return self.keys(self.index(key, "right"), count)

    def before(self, key: Key, count: int) -> list[Key]:
        end = self.index(key)
        first = max(0, end - count)
        return self.keys(first, end - first)

    def has_before(self, key: Key) -> bool:
        return self.index(key) > 0

    def arrived(self, number: int, count: int) -> list[Key]:
        places = np.flatnonzero(self.number > number)
        places = places[np.argsort(self.number[places])][:count]
        return list(zip(self.time_ns[places].tolist(), self.number[places].tolist(), strict=True))

    def merged(self, more: KnownOrder) -> KnownOrder:
        """With lines that have all come later: of one moment they stand behind those that were there."""
        if not len(more):
            return self
        places = np.searchsorted(self.time_ns, more.time_ns, "right")
        return KnownOrder(np.insert(self.time_ns, places, more.time_ns), np.insert(self.number, places, more.number))


@dataclass(frozen=True)
class _Likenesses:
    """What each line is like, and whose it is: columns `number`, `like` (a hash) and `rank`, as they came in."""

    number: NDArray[np.int64]
    like: NDArray[np.uint64]
    rank: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.number)

    def merged(self, more: _Likenesses) -> _Likenesses:
        if not len(more):
            return self
        return _Likenesses(
            np.concatenate((self.number, more.number)),
            np.concatenate((self.like, more.like)),
            np.concatenate((self.rank, more.rank)),
        )

    @cached_property
    def odd(self) -> NDArray[np.int64]:
        """The numbers of the lines that no other rank has printed."""
        if not len(self):
            return self.number
        order = np.argsort(self.like, kind="stable")
        like, rank = self.like[order], self.rank[order]
        first = np.flatnonzero(np.concatenate(([True], like[1:] != like[:-1])))
        is_alone = np.minimum.reduceat(rank, first) == np.maximum.reduceat(rank, first)
        sizes = np.diff(np.append(first, len(like)))
        odd: NDArray[np.int64] = self.number[order[np.repeat(is_alone, sizes)]]
        return odd


_T = TypeVar("_T", KnownOrder, _Likenesses)


@dataclass
class _Shelf(Generic[_T]):
    """What is kept of some questions: for each, up to which number it goes. Bounded; safe between threads."""

    kept: OrderedDict[object, tuple[int, _T]] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def find(self, key: object, newest: int, read: Callable[[int], _T]) -> _T:
        """What is true up to `newest`: what is kept, and what `read` tells of the lines beyond a number."""
        with self.lock:
            known = self.kept.get(key)
        if known is not None and known[0] > newest:
            known = None  # another database, or lines were removed and their numbers will come again
        if known is None:
            value = read(0)
        elif known[0] < newest:
            value = known[1].merged(read(known[0]))
        else:
            value = known[1]
        with self.lock:
            self.kept.pop(key, None)
            if len(value) <= KEPT_LINES:
                self.kept[key] = (newest, value)
            while len(self.kept) > KEPT_ORDERS or self._sum() > KEPT_LINES:
                self.kept.popitem(last=False)
        return value

    def lines(self) -> int:
        """How many lines are kept."""
        with self.lock:
            return self._sum()

    def _sum(self) -> int:
        return sum(len(value) for _, value in self.kept.values())


class LineOrders:
    """The orders of the last few questions, of one database. May be used by several threads at once."""

    def __init__(self) -> None:
        self._orders: _Shelf[KnownOrder] = _Shelf()
        self._likenesses: _Shelf[_Likenesses] = _Shelf()

    def kept_lines(self) -> int:
        """How many lines are kept in memory, of all questions."""
        return self._orders.lines() + self._likenesses.lines()

    def order(self, cursor: duckdb.DuckDBPyConnection, filter_: LineFilter, newest: int) -> KnownOrder:
        """The order of all lines of the filter with a number up to `newest`.

        Raises:
            TooManyLines: there are more than MAX_ORDERED_LINES.
        """
        asked = replace(filter_, odd=False)
        condition, parameters = asked.condition()

        def read(number: int) -> KnownOrder:
            sql = (
                f"SELECT time_ns, number FROM {asked.table('lines')} WHERE {condition}"
                " AND number > $number AND number <= $newest ORDER BY time_ns, number"
            )
            found = _columns(cursor, sql, {**parameters, "number": number, "newest": newest})
            return KnownOrder(found["time_ns"], found["number"])

        order = self._orders.find(asked if filter_.odd else filter_, newest, read)
        if filter_.odd:
            numbers = self._likes(cursor, filter_, newest).odd
            is_odd = np.isin(order.number, numbers, assume_unique=True)
            order = KnownOrder(order.time_ns[is_odd], order.number[is_odd])
        return order

    def who(
        self, cursor: duckdb.DuckDBPyConnection, filter_: LineFilter, newest: int, likenesses: Iterable[int]
    ) -> dict[int, set[int]]:
        """The ranks that have printed, or are about to print, what is like that: whatever else the filter wants."""
        known = self._likes(cursor, filter_, newest)
        found = {like: set(known.rank[known.like == np.uint64(like)].tolist()) for like in likenesses}
        ranks = dict(filter_.everyone)
        rows = cursor.execute(
            f"SELECT {LIKENESS}, writer FROM open_lines WHERE writer IN (SELECT unnest($writers::INTEGER[]))",
            {"writers": list(ranks)},
        ).fetchall()
        for like, writer in rows:
            found.get(like, set()).add(ranks[writer])
        return found

    def _likes(self, cursor: duckdb.DuckDBPyConnection, filter_: LineFilter, newest: int) -> _Likenesses:
        writers, ranks = ([pair[part] for pair in filter_.everyone] for part in (0, 1))

        def read(number: int) -> _Likenesses:
            sql = (
                f'SELECT number, {LIKENESS} AS "like", rank FROM lines'
                " JOIN (SELECT unnest($writers::INTEGER[]) AS writer, unnest($ranks::INTEGER[]) AS rank)"
                " USING (writer) WHERE number > $number AND number <= $newest"
            )
            asked = {"writers": writers, "ranks": ranks, "number": number, "newest": newest}
            found = _columns(cursor, sql, asked)
            return _Likenesses(found["number"], found["like"], found["rank"])

        return self._likenesses.find((filter_.run, filter_.everyone), newest, read)


def _columns(cursor: duckdb.DuckDBPyConnection, sql: str, parameters: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """The rows as plain arrays. One row too many is read where there are too many, and no more."""
    found = cursor.execute(f"{sql} LIMIT {MAX_ORDERED_LINES + 1}", parameters).fetchnumpy()
    if any(len(column) > MAX_ORDERED_LINES for column in found.values()):
        raise TooManyLines
    return {name: np.asarray(column) for name, column in found.items()}
