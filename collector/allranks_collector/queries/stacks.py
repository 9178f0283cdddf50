"""Where the ranks of a run stood when they were last asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from allranks_collector.queries.runs import seconds
from allranks_collector.quorum import group, sentence

if TYPE_CHECKING:
    from collections.abc import Collection

    import duckdb

    from allranks_collector.queries.select import RunRef

# Of several answers of a rank the one that the signal brought counts: what it says itself came when it could again.
_NEWEST = """
    SELECT rank, how, token, answer FROM stacks
    WHERE run = $run AND token = (SELECT max(token) FROM stacks WHERE run = $run)
    QUALIFY row_number() OVER (PARTITION BY rank ORDER BY
        CASE how WHEN 'signal' THEN 0 WHEN 'asked' THEN 1 ELSE 2 END, time_ns) = 1
    ORDER BY rank"""


def newest_stacks(
    cursor: duckdb.DuckDBPyConnection,
    run: RunRef,
    *,
    with_threads: bool = True,
    ranks: Collection[int] | None = None,
) -> dict[str, Any]:
    """The newest asking: `asked_at`, all groups as one line of `text`, `groups`, and `ranks` with their threads.

    Without threads it is small, also of a thousand ranks; and so it is of a few `ranks` (None: all), whatever groups
    the others form. `asked_at` is null, and the rest empty, where nobody has been asked.
    """
    rows = cursor.execute(_NEWEST, {"run": run.run}).fetchall()
    answers = {rank: json.loads(answer) for rank, _, _, answer in rows}
    groups = group(answers)
    return {
        "asked_at": seconds(int(rows[0][2][:16], 16)) if rows else None,
        "text": sentence(groups),
        "groups": [each.told() for each in groups],
        "ranks": [
            {
                "rank": rank,
                "how": how,
                "reason": answers[rank].get("reason"),
                "threads": answers[rank].get("threads", []) if with_threads else [],
            }
            for rank, how, _, _ in rows
            if ranks is None or rank in ranks
        ],
    }
