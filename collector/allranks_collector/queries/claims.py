"""What the collector has found odd in what ranks claim of themselves; see `claims`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from allranks_collector.claims import KINDS, TWICE

if TYPE_CHECKING:
    import duckdb

    from allranks_collector.queries.select import RunRef

_MOST_TOLD = 8
# The writers that claim a rank which another one had first, of the same attempt: they are not the rank.
RIVALS = (
    "SELECT unnest(from_json(body->'$.rivals', '[\"INTEGER\"]')) AS writer FROM events"
    f" WHERE kind = '{TWICE}' AND run IN (SELECT unnest($runs::INTEGER[]))"
)


def rivals(cursor: duckdb.DuckDBPyConnection, runs: Iterable[int]) -> set[int]:
    """The writers of runs that claim a rank which another had first; their data is stored as their own."""
    return {writer for (writer,) in cursor.execute(RIVALS, {"runs": list(runs)}).fetchall()}


def claimants(cursor: duckdb.DuckDBPyConnection, runs: Iterable[int]) -> set[int]:
    """All writers of which it has been said that they claim one rank together."""
    rows = cursor.execute(
        "SELECT body FROM events WHERE kind = $kind AND run IN (SELECT unnest($runs::INTEGER[]))",
        {"kind": TWICE, "runs": list(runs)},
    ).fetchall()
    return {claim["writer"] for (body,) in rows for claim in json.loads(body)["claims"]}


def told_claims(cursor: duckdb.DuckDBPyConnection, run: RunRef, attempt: int | None) -> list[str]:
    """What is odd about an attempt's ranks, one sentence each; what concerns no attempt belongs to each."""
    rows = cursor.execute(
        "SELECT body, writer FROM events WHERE run = $run AND kind IN (SELECT unnest($kinds::VARCHAR[]))"
        " ORDER BY event",
        {"run": run.run, "kinds": list(KINDS)},
    ).fetchall()
    if not rows:
        return []
    # Attempts get other numbers when an earlier one comes in late: only the writers know theirs.
    of_attempt = cursor.execute("SELECT writer FROM writers WHERE run = ? AND attempt = ?", [run.run, attempt])
    here = {writer for (writer,) in of_attempt.fetchall()}

    def is_of_here(body: dict[str, Any], writer: int | None) -> bool:
        return writer is None or writer in here or any(claim["writer"] in here for claim in body.get("claims", ()))

    bodies: list[tuple[dict[str, Any], int | None]] = [(json.loads(body), writer) for body, writer in rows]
    told = list(dict.fromkeys(str(body["text"]) for body, writer in bodies if is_of_here(body, writer)))
    more = len(told) - _MOST_TOLD
    return told if more <= 0 else [*told[:_MOST_TOLD], f"and {more} more: see the run's events"]
