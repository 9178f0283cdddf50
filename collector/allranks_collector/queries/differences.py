"""What differs between the ranks of an attempt, and where values that should agree do not: read, and told in words.

Of values the database itself finds the steps at which ranks may differ; only those are read.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from allranks_collector.differences import TOLERANCE, differences, first_divergence, is_usual
from allranks_collector.folding import ranks_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

    from allranks_collector.differences import Group
    from allranks_collector.queries.select import RunRef

AGREE = "agree/"
# So many steps of a key are looked at closely: a rank that logs a key twice at one step makes a step look odd.
_CANDIDATES = 256
MAX_DIFFERENCES = 1000

# The newest writer of each rank of the attempt.
_MINE = """
    WITH mine AS (
        SELECT writer, rank, host, world_size FROM writers
        WHERE run = $run AND attempt = $attempt AND role = 'rank'
        QUALIFY writer = max(writer) OVER (PARTITION BY rank))"""

_TOLD = f"""{_MINE}
    SELECT rank, body FROM surroundings JOIN mine USING (writer)
    QUALIFY surroundings.rowid = max(surroundings.rowid) OVER (PARTITION BY rank)"""

_CONFIG = f"""{_MINE}
    SELECT rank, key, value FROM config JOIN mine USING (writer) WHERE run = $run
    QUALIFY config.rowid = max(config.rowid) OVER (PARTITION BY writer, key)"""

_CLOCKS = f"""{_MINE}
    SELECT rank, offset_ns FROM clocks JOIN mine USING (writer)
    QUALIFY clocks.rowid = max(clocks.rowid) OVER (PARTITION BY writer)"""

_KEYS = f"""{_MINE}
    SELECT key, kind, list(series) FROM series JOIN mine USING (writer)
    WHERE kind = 'metric' OR (kind = 'object' AND starts_with(key, $agree))
    GROUP BY key, kind HAVING count(*) > 1 ORDER BY key"""

# The steps at which the ranks' values of one key are not all alike, the first of them.
_ODD_POINTS = """
    SELECT step FROM points WHERE series IN (SELECT unnest($series::INTEGER[])) GROUP BY step
    HAVING max(value) - min(value) > $tolerance * greatest(abs(max(value)), abs(min(value)))
        OR isnan(max(value)) OR isnan(min(value)) OR isinf(max(value)) OR isinf(min(value))
        OR count(value) < count(*)
    ORDER BY step LIMIT $most"""
_ODD_OBJECTS = """
    SELECT step FROM objects WHERE series IN (SELECT unnest($series::INTEGER[])) GROUP BY step
    HAVING count(DISTINCT body) > 1 ORDER BY step LIMIT $most"""

# Of several values of one rank at one step the last counts.
_VALUES = """
    SELECT step, rank, {column} FROM {table} JOIN series USING (series) JOIN writers USING (writer)
    WHERE series IN (SELECT unnest($series::INTEGER[])) AND step IN (SELECT unnest($steps::BIGINT[]))
    QUALIFY {table}.rowid = max({table}.rowid) OVER (PARTITION BY step, rank)"""


def list_differences(cursor: duckdb.DuckDBPyConnection, run: RunRef, *, attempt: int | None = None) -> dict[str, Any]:
    """What differs between the ranks of an attempt (None: the newest).

    Returns:
        `ranks`: how many have come; `told`: of those, who has said what surrounds it. `differences`: the most telling
        first, each with its `groups`, the largest first, and as `text`. `diverged`: values that should agree, each
        at its first step at which they do not; `compared`: the names of all that were looked at.
    """
    if attempt is None:
        row = cursor.execute("SELECT max(attempt) FROM writers WHERE run = ?", [run.run]).fetchone()
        attempt = row[0] if row else None
    asked = {"run": run.run, "attempt": attempt}
    hosts = {
        rank: str(host) for rank, host in cursor.execute(f"{_MINE} SELECT rank, host FROM mine", asked).fetchall()
    }
    told: dict[int, dict[str, Any]] = {
        rank: json.loads(body) for rank, body in cursor.execute(_TOLD, asked).fetchall()
    }
    config: dict[int, dict[str, Any]] = defaultdict(dict)
    for rank, key, value in cursor.execute(_CONFIG, asked).fetchall():
        config[rank][key] = json.loads(value)
    offsets: dict[int, int] = dict(cursor.execute(_CLOCKS, asked).fetchall())
    found = differences(told, config, offsets, hosts)
    compared, diverged = _diverged(cursor, asked, hosts)
    return {
        "attempt": attempt,
        "ranks": len(hosts),
        "told": len(told),
        "differences": [
            {
                "section": difference.section.name,
                "title": difference.section.title,
                "name": difference.name,
                "each": difference.each,
                "groups": _groups(difference.groups),
                "text": difference.text,
            }
            for difference in found[:MAX_DIFFERENCES]
        ],
        "diverged": diverged,
        "compared": compared,
    }


def _diverged(
    cursor: duckdb.DuckDBPyConnection, asked: dict[str, Any], hosts: dict[int, str]
) -> tuple[list[str], list[dict[str, Any]]]:
    """The names of the values that should agree, and where they do not, the earliest first."""
    compared: list[str] = []
    found: list[dict[str, Any]] = []
    for key, kind, series in cursor.execute(_KEYS, {**asked, "agree": AGREE}).fetchall():
        is_told = kind == "object"
        if not (is_told or is_usual(key)):
            continue
        name = key.removeprefix(AGREE) if is_told else key
        compared.append(name)
        steps = _values(cursor, series, is_told=is_told)
        divergence = first_divergence(name, steps, hosts, tolerance=0.0 if is_told else TOLERANCE)
        if divergence is not None:
            found.append(
                {
                    "name": name,
                    "kind": "agree" if is_told else "metric",
                    "step": divergence.step,
                    "groups": _groups(divergence.groups),
                    "text": divergence.text,
                }
            )
    return compared, sorted(found, key=lambda one: (one["step"], one["name"]))


def _values(cursor: duckdb.DuckDBPyConnection, series: Sequence[int], *, is_told: bool) -> dict[int, dict[int, Any]]:
    """By step and rank, the values at those steps at which they may differ."""
    told: dict[str, Any] = {"series": list(series), "most": _CANDIDATES}
    odd = _ODD_OBJECTS if is_told else _ODD_POINTS
    tolerance = {} if is_told else {"tolerance": TOLERANCE}
    steps = [step for (step,) in cursor.execute(odd, {**told, **tolerance}).fetchall()]
    values: dict[int, dict[int, Any]] = defaultdict(dict)
    if not steps:
        return values
    table, column = ("objects", "body") if is_told else ("points", "value")
    query = _VALUES.format(table=table, column=column)
    for step, rank, value in cursor.execute(query, {"series": list(series), "steps": steps}).fetchall():
        if is_told:
            body = json.loads(value)
            value = body.get("value") if isinstance(body, dict) else body
        elif value is None:
            value = math.nan  # as DuckDB reads numpy's
        values[step][rank] = value
    return values


def _groups(groups: Sequence[Group]) -> list[dict[str, Any]]:
    return [
        {
            "value": group.value,
            "count": len(group.ranks),
            "ranks": ranks_text(group.ranks),
            "hosts": list(group.hosts),
        }
        for group in groups
    ]
