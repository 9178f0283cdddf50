"""Who the ranks of a run wait for, read from what they said of their sections; and hosts that were slow before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from allranks_collector.stragglers import Ranking, Work, ranking

if TYPE_CHECKING:
    import duckdb

    from allranks_collector.queries.select import RunRef

MAX_RANKS = 1000
# Earlier runs on the same hosts that are looked at.
EARLIER_RUNS = 10
# An attempt is compared in so many stretches of steps, each of some windows: those of two ranks do not begin alike.
_STRETCHES = 200
_WINDOWS_OF_A_STRETCH = 4

_MINE = """
    WITH mine AS (
        SELECT writer, rank FROM writers WHERE run = $run AND attempt = $attempt AND role = 'rank'
        QUALIFY writer = max(writer) OVER (PARTITION BY rank)),
    told AS (SELECT * FROM sections JOIN mine USING (writer) WHERE to_step >= 0 AND from_step >= 0)"""

_SPAN = f"""{_MINE}
    SELECT min(from_step), max(to_step), quantile_disc(to_step - from_step + 1, 0.9) FROM told"""

_WORK = f"""{_MINE},
    placed AS (SELECT *, ((from_step + to_step) // 2 - $first) // $size AS stretch FROM told),
    windows AS (
        SELECT rank, stretch, max(to_step) - min(from_step) + 1 AS steps, sum(seconds) AS seconds FROM (
            SELECT DISTINCT rank, stretch, time_ns, from_step, to_step, seconds FROM placed)
        GROUP BY rank, stretch),
    parts AS (SELECT rank, stretch, section, sum(spent) AS spent FROM placed GROUP BY rank, stretch, section)
    SELECT rank, stretch, any_value(steps), any_value(windows.seconds), list(section), list(spent)
    FROM parts JOIN windows USING (rank, stretch) GROUP BY rank, stretch"""

_EARLIER = """
    WITH hosts AS (SELECT DISTINCT host FROM writers WHERE run = $run AND attempt = $attempt AND role = 'rank'),
    before AS (SELECT run, id, created_ns FROM runs WHERE created_ns < $created),
    shared AS (SELECT DISTINCT run FROM writers SEMI JOIN hosts USING (host) SEMI JOIN sections USING (writer))
    SELECT run, id, (SELECT max(attempt) FROM writers WHERE writers.run = before.run)
    FROM before SEMI JOIN shared USING (run) ORDER BY created_ns DESC LIMIT $most"""

_HOSTS = (
    "SELECT rank, arg_max(host, writer) FROM writers WHERE run = ? AND attempt = ? AND role = 'rank' GROUP BY rank"
)


def list_stragglers(
    cursor: duckdb.DuckDBPyConnection, run: RunRef, *, attempt: int | None = None, limit: int = 100
) -> dict[str, Any]:
    """Which ranks of an attempt (None: the newest) cost the others time, who costs most first.

    Returns:
        `seconds`: the time that was compared; `lost_s`: of it, what waiting for the slowest cost; `rank_hours`: that
        for all ranks. `ranks`: those that are slower than the median, `slow` where that is more than chance, with the
        section that costs it, and the steps that cost most. `hosts`: those of the run that had slow ranks in earlier
        runs, or have some now. `measured`: how many ranks have said what their time goes to.
    """
    if attempt is None:
        ((attempt,),) = cursor.execute("SELECT max(attempt) FROM writers WHERE run = ?", [run.run]).fetchall()
    found, places = _ranked(cursor, run.run, attempt)
    hosts = dict(cursor.execute(_HOSTS, [run.run, attempt]).fetchall())
    count = len(hosts)
    ranks = [
        {
            "rank": one.rank,
            "host": hosts.get(one.rank),
            "lost_s": one.lost_s,
            "rank_hours": one.lost_s * count / 3600,
            "slow": found.is_slow(one),
            "section": one.section,
            "sections": {name: seconds for name, seconds in sorted(one.by_section.items()) if seconds > 0},
            "worst_steps": places.steps(one.worst),
        }
        for one in found.ranks[: min(limit, MAX_RANKS)]
        if one.lost_s > 0
    ]
    return {
        "attempt": attempt,
        "measured": len(found.ranks),
        "seconds": found.seconds,
        "lost_s": found.lost_s,
        "rank_hours": found.lost_s * count / 3600,
        "ranks": ranks,
        "hosts": _hosts(cursor, run, attempt, _slow_hosts(found, hosts), set(hosts.values())),
    }


class _Places:
    """Which steps a stretch has."""

    def __init__(self, first: int, last: int, size: int) -> None:
        self.first, self.last, self.size = first, last, size

    def steps(self, stretch: int | None) -> list[int] | None:
        if stretch is None:
            return None
        begin = self.first + stretch * self.size
        return [begin, min(self.last, begin + self.size - 1)]


def _ranked(cursor: duckdb.DuckDBPyConnection, run: int, attempt: int | None) -> tuple[Ranking, _Places]:
    asked = {"run": run, "attempt": attempt}
    ((first, last, span),) = cursor.execute(_SPAN, asked).fetchall()
    if first is None:
        return ranking(()), _Places(0, 0, 1)
    size = max(1, -(-(last - first + 1) // _STRETCHES), _WINDOWS_OF_A_STRETCH * span)
    # A run of few windows is compared as a whole.
    rows = cursor.execute(_WORK, {**asked, "first": first, "size": size}).fetchall()
    works = [
        Work(rank, stretch, steps, seconds, dict(zip(names, spent, strict=True)))
        for rank, stretch, steps, seconds, names, spent in rows
    ]
    return ranking(works), _Places(first, last, size)


def _slow_hosts(found: Ranking, hosts: dict[int, str]) -> dict[str, float]:
    """Hosts with slow ranks, and what the slowest of them costs."""
    slow: dict[str, float] = {}
    for one in found.ranks:
        host = hosts.get(one.rank)
        if host is not None and found.is_slow(one):
            slow[host] = max(slow.get(host, 0.0), one.lost_s)
    return slow


def _hosts(
    cursor: duckdb.DuckDBPyConnection, run: RunRef, attempt: int | None, now: dict[str, float], mine: set[str]
) -> list[dict[str, Any]]:
    """The run's hosts that are slow, or were in earlier runs: the worst first."""
    earlier: dict[str, list[dict[str, Any]]] = {}
    asked = {"run": run.run, "attempt": attempt, "created": run.created_ns, "most": EARLIER_RUNS}
    for number, id_, newest in cursor.execute(_EARLIER, asked).fetchall():
        found, _ = _ranked(cursor, number, newest)
        hosts = dict(cursor.execute(_HOSTS, [number, newest]).fetchall())
        for host, lost_s in _slow_hosts(found, hosts).items():
            if host in mine:
                earlier.setdefault(host, []).append({"run": id_, "lost_s": lost_s})
    return sorted(
        ({"host": host, "lost_s": now.get(host, 0.0), "earlier": earlier.get(host, [])} for host in {*now, *earlier}),
        key=lambda one: (-len(one["earlier"]), -one["lost_s"], one["host"]),
    )
