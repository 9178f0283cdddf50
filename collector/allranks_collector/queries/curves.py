"""Curves: the points of some keys and ranks, thinned to buckets in SQL.

The buckets are those of `grid`. Their width comes from where the writers stand, which is known without reading a
point; only where that leaves more than half of the buckets unused (a run that resumed far from step 0, a key that
ended early) the exact span is read. The one scan of `points` is most of what a question costs.

A run that went back to a checkpoint has several attempts at the same steps. Of those the newest one counts, and what
older ones did beyond the step at which it went on is left out: one curve, as if the run had never failed.

Values that are not finite are counted in `nonfinite` and in nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from allranks_collector.queries.claims import rivals
from allranks_collector.queries.clocks import in_one_clock, wrong_clocks
from allranks_collector.queries.grid import fitting_shift, is_wasteful
from allranks_collector.queries.select import BadQuery, TooMuch

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    import duckdb

    from allranks_collector.queries.clocks import Offsets
    from allranks_collector.queries.select import RunRef

# A chart has about as many pixels across.
DEFAULT_BUCKETS = 1000
MAX_BUCKETS = 100_000
# The rows of one answer with buckets=0: some 250 MB of JSON.
MAX_RAW_POINTS = 4_000_000

_FINITE = "CASE WHEN isfinite(value) THEN value END"
_COUNTS = "count(v) AS count, count(*) - count(v) AS nonfinite"
_FIGURES = {
    "none": f"min(time_ns) AS time, avg(v) AS value, min(v) AS min, max(v) AS max, {_COUNTS}",
    "ranks": "avg(v) AS mean, min(v) AS min, max(v) AS max,"
    f" arg_min(rank, v) AS min_rank, arg_max(rank, v) AS max_rank, {_COUNTS}",
}
_POSITION = {"step": "step", "time": "time_ns"}
# Beyond all steps, and before them.
_NO_STEP, _NOTHING = 2**63 - 1, -(2**63)


@dataclass(frozen=True)
class CurveRequest:
    """Which curves to make, and how.

    Attributes:
        keys: which metrics; None for all of the kind. A key that the run does not have gives no curve.
        kind: "metric" or "system".
        ranks: which ranks; None for all.
        attempt: a number; "all", each attempt its own curve; or None for all as one curve, in which older attempts
            end where a newer one begins to log the key. (Every point comes by attempt even so; figures of kind
            system are those of the newest attempt.)
        step_min: first step wanted; None for no limit.
        step_max: last step wanted, inclusive; None for no limit.
        buckets: at most so many buckets a curve; 0 for every point (with reduce="ranks": for every step).
        reduce: "none" gives a curve per key and rank, "ranks" one per key over all ranks.
        x: "step", "time" (seconds since the run was created), or the name of a metric, joined by rank and step.
    """

    keys: Sequence[str] | None
    kind: str = "metric"
    ranks: Collection[int] | None = None
    attempt: int | str | None = None
    step_min: int | None = None
    step_max: int | None = None
    buckets: int = DEFAULT_BUCKETS
    reduce: str = "none"
    x: str = "step"

    def __post_init__(self) -> None:
        """Raises BadQuery where an argument is out of its range."""
        if not 0 <= self.buckets <= MAX_BUCKETS:
            raise BadQuery("buckets", self.buckets, f"0 (every point) to {MAX_BUCKETS}")
        if self.reduce not in _FIGURES:
            raise BadQuery("reduce", self.reduce, "none or ranks")
        if not self.x:
            raise BadQuery("x", self.x, "step, time or the name of a metric")

    @property
    def is_raw(self) -> bool:
        """Whether every point is wanted, with no aggregation at all."""
        return self.buckets == 0 and self.reduce == "none"


@dataclass(frozen=True)
class _Chosen:
    """The curves to make, and the series that belong to each; `columns` is parallel lists of one row a series."""

    curves: list[tuple[str, int | None, int]]  # key, rank (None over ranks), attempt
    columns: dict[str, list[int]]  # series, curve, rank, attempt, until (the first step that counts no more)
    writers: set[int]
    clocks: Offsets = ()  # of the series whose writers' clocks are wrong

    @property
    def points(self) -> str:
        """The points, with all times in one clock."""
        return in_one_clock("points", self.clocks, of="series")

    @property
    def is_cut(self) -> bool:
        """Whether some series count up to a step only."""
        return any(until != _NO_STEP for until in self.columns["until"])


def metrics(cursor: duckdb.DuckDBPyConnection, run: RunRef, request: CurveRequest) -> dict[str, Any]:
    """The curves as dicts with a numpy array for each column; `plain` makes lists of them.

    Returns:
        `{"series": [...], "buckets": int, "x": str}`. A curve has key, attempt and, unless reduced, rank; then
        columns of one length: x and step, both of the bucket's first point, and
        for each rank: time (unix seconds, of the first point), value (the mean), min, max, count, nonfinite;
        over ranks: mean, min, max, min_rank, max_rank, count, nonfinite;
        every point (buckets=0): time, value.
        Masked where a bucket has no finite value. `count` counts the finite ones.

    Raises:
        TooMuch: buckets=0, and there are more than MAX_RAW_POINTS rows.
    """
    answer: dict[str, Any] = {"series": [], "buckets": request.buckets, "x": request.x}
    chosen = _choose(cursor, run, request)
    if not chosen.curves:
        return answer
    if request.x in _POSITION:
        columns = _by_position(cursor, request, chosen)
    else:
        columns = _by_metric(cursor, run, request, chosen)
    if request.x == "time":
        columns["x"] = (columns["x"] - run.created_ns) / 1e9
    if "time" in columns:
        columns["time"] = columns["time"] / 1e9
    answer["series"] = list(_split(chosen, columns))
    return answer


def plain(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer of `metrics` with lists in place of arrays, and None where there is no finite value."""
    series = [
        {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in curve.items()}
        for curve in answer["series"]
    ]
    return {**answer, "series": series}


def _choose(cursor: duckdb.DuckDBPyConnection, run: RunRef, request: CurveRequest) -> _Chosen:
    """The series asked for, by curve. All writers of a rank, its children too, belong to the rank's curve.

    But for another process that claims to be this rank: no curve may mix what two of them have logged.
    """
    rows: list[tuple[int, int, str, int, int]] = cursor.execute(
        "SELECT series, writer, key, rank, attempt FROM series JOIN writers USING (writer)"
        " WHERE run = $run AND kind = $kind AND ($keys IS NULL OR list_contains($keys::VARCHAR[], key))"
        " ORDER BY series",
        {"run": run.run, "kind": request.kind, "keys": None if request.keys is None else list(request.keys)},
    ).fetchall()
    apart = rivals(cursor, [run.run])
    rows = [row for row in rows if row[1] not in apart]
    newest: dict[str, int] = {}
    for _, _, key, _, attempt in rows:
        newest[key] = max(attempt, newest.get(key, attempt))
    is_lineage = request.attempt is None and request.kind == "metric"

    def is_wanted(key: str, rank: int, attempt: int) -> bool:
        wanted = newest[key] if request.attempt is None else request.attempt
        is_in = until.get((key, attempt)) != _NOTHING if is_lineage else wanted in ("all", attempt)
        return is_in and (request.ranks is None or rank in request.ranks)

    until = _ends(cursor, rows) if is_lineage else {}
    rows = [row for row in rows if is_wanted(row[2], row[3], row[4])]
    merged, joined = request.reduce == "ranks", is_lineage and not request.is_raw
    curve_of = {row[0]: (row[2], None if merged else row[3], newest[row[2]] if joined else row[4]) for row in rows}
    order = {key: place for place, key in enumerate(request.keys or sorted(newest))}
    curves = sorted(set(curve_of.values()), key=lambda curve: (order[curve[0]], curve[2], curve[1] or 0))
    number = {curve: place for place, curve in enumerate(curves)}
    columns = {
        "series": [row[0] for row in rows],
        "curve": [number[curve_of[row[0]]] for row in rows],
        "rank": [row[3] for row in rows],
        "attempt": [row[4] for row in rows],
        "until": [until.get((row[2], row[4]), _NO_STEP) for row in rows],
    }
    wrong = dict(wrong_clocks(cursor, run))
    clocks = tuple((row[0], wrong[row[1]]) for row in rows if row[1] in wrong)
    return _Chosen(curves, columns, {row[1] for row in rows}, clocks)


def _ends(
    cursor: duckdb.DuckDBPyConnection, rows: Sequence[tuple[int, int, str, int, int]]
) -> dict[tuple[str, int], int]:
    """By key and attempt, the step from which a newer attempt counts; `_NOTHING` where nothing is left of it.

    That is where the lowest of its ranks has begun to log the key.
    """
    attempts: dict[str, set[int]] = {}
    lowest: dict[tuple[str, int], int] = {}
    for _, _, key, rank, attempt in rows:
        attempts.setdefault(key, set()).add(attempt)
        lowest[key, attempt] = min(rank, lowest.get((key, attempt), rank))
    asked = {
        series: (key, attempt)
        for series, _, key, rank, attempt in rows
        if len(attempts[key]) > 1 and rank == lowest[key, attempt]
    }
    if not asked:
        return {}
    first: dict[tuple[str, int], int] = {}
    for series, step in cursor.execute(
        "SELECT series, min(step) FROM points WHERE series IN (SELECT unnest($series::INTEGER[])) GROUP BY series",
        {"series": list(asked)},
    ).fetchall():
        first[asked[series]] = min(step, first.get(asked[series], step))
    ends: dict[tuple[str, int], int] = {}
    for key, of_key in attempts.items():
        end = _NO_STEP
        for attempt in sorted(of_key, reverse=True):
            begin = first.get((key, attempt), _NO_STEP)
            ends[key, attempt] = end if begin < end or end == _NO_STEP else _NOTHING
            end = min(end, begin)
    return ends


_CHOSEN = (
    "chosen AS (SELECT unnest($series::INTEGER[]) AS series, unnest($curve::INTEGER[]) AS curve,"
    " unnest($rank::INTEGER[]) AS rank, unnest($attempt::INTEGER[]) AS attempt, unnest($until::BIGINT[]) AS until)"
)


def _by_position(cursor: duckdb.DuckDBPyConnection, request: CurveRequest, chosen: _Chosen) -> dict[str, np.ndarray]:
    position = _POSITION[request.x]
    if request.is_raw:
        columns = _fetch(
            cursor,
            f"WITH {_CHOSEN} SELECT curve, step, time_ns AS time, {_FINITE} AS value"
            f" FROM {chosen.points} JOIN chosen USING (series) {_where(request, chosen)}"
            f" ORDER BY curve, {position}, time_ns",
            chosen,
            limit=MAX_RAW_POINTS,
        )
    elif request.buckets == 0:
        columns = _bucketed(cursor, request, chosen, 0, limit=MAX_RAW_POINTS)
    else:
        low, high = _guessed_span(cursor, request, chosen)
        shift = fitting_shift(low, high, request.buckets)
        columns = _bucketed(cursor, request, chosen, shift)
        used = columns["bucket"]
        if len(used) and is_wasteful(int(used.max()) - int(used.min()) + 1, shift, request.buckets):
            low, high = _exact_span(cursor, request, chosen)
            shift = fitting_shift(low, high, request.buckets)
            columns = _bucketed(cursor, request, chosen, shift)
    if request.x == "step":
        columns["x"] = columns["step"]
    elif request.is_raw:
        columns["x"] = columns["time"]
    return columns


def _bucketed(
    cursor: duckdb.DuckDBPyConnection,
    request: CurveRequest,
    chosen: _Chosen,
    shift: int,
    limit: int | None = None,
) -> dict[str, np.ndarray]:
    # The shift is also what makes this fast: DuckDB knows the range of its result, and groups without hashing
    # (measured: 64 ms for 1.3 of 22 million rows, and 120 ms with a division in its place).
    position = _POSITION[request.x]
    x = "" if request.x == "step" else "min(time_ns) AS x,"
    return _fetch(
        cursor,
        f"WITH {_CHOSEN}, p AS (SELECT curve, rank, step, time_ns, {position} >> {shift} AS bucket, {_FINITE} AS v"
        f" FROM {chosen.points} JOIN chosen USING (series) {_where(request, chosen)})"
        f" SELECT curve, bucket, {x} min(step) AS step, {_FIGURES[request.reduce]}"
        " FROM p GROUP BY curve, bucket ORDER BY curve, bucket",
        chosen,
        limit,
    )


def _guessed_span(cursor: duckdb.DuckDBPyConnection, request: CurveRequest, chosen: _Chosen) -> tuple[int, int]:
    """Where the points should lie, from the writers' positions and the request's own limits."""
    row = cursor.execute(
        "SELECT max(last_step), min(opened_ns), max(last_ns) FROM positions JOIN writers USING (writer)"
        " WHERE list_contains($writers::INTEGER[], writer)",
        {"writers": list(chosen.writers)},
    ).fetchone()
    last_step, opened_ns, last_ns = (int(value or 0) for value in row or (0, 0, 0))
    if request.x == "time":
        return opened_ns, max(opened_ns, last_ns)
    low = 0 if request.step_min is None else request.step_min
    high = last_step if request.step_max is None else min(request.step_max, last_step)
    return low, max(low, high)


def _exact_span(cursor: duckdb.DuckDBPyConnection, request: CurveRequest, chosen: _Chosen) -> tuple[int, int]:
    position = _POSITION[request.x]
    columns = _fetch(
        cursor,
        f"WITH {_CHOSEN} SELECT min({position}) AS low, max({position}) AS high"
        f" FROM {chosen.points} JOIN chosen USING (series) {_where(request, chosen)}",
        chosen,
    )
    return int(columns["low"][0]), int(columns["high"][0])


def _by_metric(
    cursor: duckdb.DuckDBPyConnection, run: RunRef, request: CurveRequest, chosen: _Chosen
) -> dict[str, np.ndarray]:
    """With another metric's value as x: of the points of the same rank, attempt and step, the newest one's."""
    matched = (
        f"WITH {_CHOSEN}, xs AS (SELECT rank, attempt, step, arg_max(value, time_ns) AS xv"
        " FROM points JOIN series USING (series) JOIN writers USING (writer)"
        f" WHERE run = {run.run} AND kind = 'metric' AND key = $x AND isfinite(value) GROUP BY ALL),"
        f" p AS MATERIALIZED (SELECT curve, rank, step, time_ns, xv, {_FINITE} AS v"
        f" FROM {chosen.points} JOIN chosen USING (series) JOIN xs USING (rank, attempt, step)"
        f" {_where(request, chosen)})"
    )
    if request.is_raw:
        return _fetch(
            cursor,
            f"{matched} SELECT curve, xv AS x, step, time_ns AS time, v AS value FROM p ORDER BY curve, xv, step",
            chosen,
            limit=MAX_RAW_POINTS,
            x=request.x,
        )
    if request.buckets == 0:
        width, bucket = "1", "xv"
    else:
        # A power of two, as in `grid`, so that the buckets hold still while the run grows.
        span = f"(max(xv) - min(xv)) / {max(1, request.buckets - 1)}"
        width, bucket = f"CASE WHEN max(xv) > min(xv) THEN pow(2, ceil(log2({span}))) ELSE 1 END", "floor(xv / width)"
    return _fetch(
        cursor,
        f"{matched}, w AS (SELECT {width} AS width FROM p)"
        f" SELECT curve, {bucket} AS bucket, min(xv) AS x, min(step) AS step, {_FIGURES[request.reduce]}"
        " FROM p, w GROUP BY curve, bucket ORDER BY curve, bucket",
        chosen,
        limit=None if request.buckets else MAX_RAW_POINTS,
        x=request.x,
    )


def _where(request: CurveRequest, chosen: _Chosen) -> str:
    limits = (("step >=", request.step_min), ("step <=", request.step_max))
    parts = [f"{words} {int(limit)}" for words, limit in limits if limit is not None]
    parts += ["step < until"] if chosen.is_cut else []
    return "WHERE " + " AND ".join(parts) if parts else ""


def _fetch(
    cursor: duckdb.DuckDBPyConnection, sql: str, chosen: _Chosen, limit: int | None = None, **parameters: object
) -> dict[str, np.ndarray]:
    if limit is not None:
        sql += f" LIMIT {limit + 1}"
    columns = cast("dict[str, np.ndarray]", cursor.execute(sql, {**chosen.columns, **parameters}).fetchnumpy())
    if limit is not None and len(next(iter(columns.values()))) > limit:
        raise TooMuch(limit)
    return columns


def _split(chosen: _Chosen, columns: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    """One dict per curve; the rows come in the order of the curves. Curves without a row are left out."""
    of_curve = columns.pop("curve")
    columns.pop("bucket", None)
    names = ["x", "step", *(name for name in columns if name not in ("x", "step"))]
    bounds = np.searchsorted(of_curve, np.arange(len(chosen.curves) + 1))
    for place, (key, rank, attempt) in enumerate(chosen.curves):
        begin, end = int(bounds[place]), int(bounds[place + 1])
        if begin < end:
            curve: dict[str, Any] = {"key": key, "attempt": attempt}
            if rank is not None:
                curve["rank"] = rank
            yield curve | {name: columns[name][begin:end] for name in names}
