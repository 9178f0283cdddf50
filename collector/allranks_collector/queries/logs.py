"""What the ranks printed: lines, merged by time."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from allranks_collector.queries.runs import seconds
from allranks_collector.queries.select import BadQuery

if TYPE_CHECKING:
    import duckdb

    from allranks_collector.queries.select import RunRef

MAX_LINES = 10_000
STREAMS = {"stdout": 1, "stderr": 2}
_NAMES = {number: name for name, number in STREAMS.items()}

_MINE = """
    WITH mine AS (
        SELECT writer, rank, attempt, host FROM writers WHERE run = $run
            AND ($attempt IS NULL OR attempt = $attempt)
            AND ($ranks IS NULL OR list_contains($ranks::INTEGER[], rank)))"""

_LINES = f"""{_MINE}
    SELECT time_ns, number, rank, attempt, host, stream, line, text FROM lines JOIN mine USING (writer)
    WHERE number <= $newest AND ($stream IS NULL OR stream = $stream)"""

_OPEN = f"""{_MINE}
    SELECT time_ns, 0, rank, attempt, host, stream, line, text FROM open_lines JOIN mine USING (writer)
    WHERE ($stream IS NULL OR stream = $stream) AND text <> '' ORDER BY time_ns, rank, stream, line"""


@dataclass(frozen=True)
class LogRequest:
    """Which lines are wanted: the newest `limit` of them, or the first `limit` behind a place.

    Attributes:
        ranks: None for all.
        stream: `stdout` or `stderr`; None for both.
        attempt: a number, `all`, or None for the newest.
        after: what an answer before gave as its `next`, or `0`, the beginning: on from there, by time.
        since: what an answer before gave as its `newest`: what has arrived after it. So lines are followed that come
            in late, too.

    Raises:
        BadQuery: an argument makes no sense.
    """

    ranks: Collection[int] | None = None
    stream: str | None = None
    attempt: int | str | None = None
    after: str | None = None
    since: int | None = None
    limit: int = 1000

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= MAX_LINES:
            raise BadQuery("limit", self.limit, f"1 to {MAX_LINES}")
        if self.stream is not None and self.stream not in STREAMS:
            raise BadQuery("stream", self.stream, " or ".join(STREAMS))
        if self.after is not None and self.since is not None:
            raise BadQuery("since", self.since, "either after or since, not both")
        self.place()

    def place(self) -> tuple[int, int]:
        """The time and the number that `after` names."""
        match = re.fullmatch(r"(\d{1,19})(?:\.(\d{1,18}))?", self.after or "0")
        if match is None:
            raise BadQuery("after", self.after, "0, or what an answer gave as next")
        return int(match[1]), int(match[2] or 0)


def list_logs(cursor: duckdb.DuckDBPyConnection, run: RunRef, wanted: LogRequest) -> dict[str, Any]:
    """Lines, merged by time.

    Returns:
        `lines`: each with number (None where it is open), time, rank, attempt, host, stream, line (its number in its
        stream), text, and open: whether it may still go on. Those come last, where nothing else follows.
        `next`: for `after`; None where nothing follows. `newest`: for `since`, of all that this answer knows of.
    """
    of = {
        "run": run.run,
        "ranks": None if wanted.ranks is None else list(wanted.ranks),
        "attempt": _attempt(cursor, run, wanted.attempt),
        "stream": None if wanted.stream is None else STREAMS[wanted.stream],
    }
    # Asked first, and nothing beyond it is given: what arrives meanwhile comes with the next `since`, and only then.
    ((newest,),) = cursor.execute("SELECT coalesce(max(number), 0) FROM lines").fetchall()
    if wanted.since is not None:
        condition, order = "number > $place", "number"
        place: dict[str, int] = {"place": wanted.since}
    elif wanted.after is not None:
        condition, order = "(time_ns, number) > ($time_ns, $number)", "time_ns, number"
        place = dict(zip(("time_ns", "number"), wanted.place(), strict=True))
    else:
        condition, order = "true", "time_ns DESC, number DESC"
        place = {}
    # One more than is wanted tells whether anything follows.
    rows = cursor.execute(
        f"{_LINES} AND {condition} ORDER BY {order} LIMIT $limit",
        {**of, **place, "newest": newest, "limit": wanted.limit + 1},
    ).fetchall()
    follows = len(rows) > wanted.limit and bool(place)
    rows = rows[: wanted.limit]
    if follows and wanted.since is not None:
        newest = rows[-1][1]
    rows.sort()
    lines = [_line(row, row[-1]) for row in rows]
    if not follows:
        lines += [_line(row, row[-1], is_open=True) for row in cursor.execute(_OPEN, of).fetchall()]
    is_paged = follows and wanted.after is not None
    return {"lines": lines, "next": f"{rows[-1][0]}.{rows[-1][1]}" if is_paged else None, "newest": newest}


def _line(row: Sequence[Any], text: str, *, is_open: bool = False) -> dict[str, Any]:
    time_ns, number, rank, attempt, host, stream, line, *_ = row
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
