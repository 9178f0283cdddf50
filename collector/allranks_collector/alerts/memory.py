"""What the readers of alerts know already: it is kept with each alert, and read by a collector that starts again.

So that what was told is not told twice, who is well again is told to be so, and what happened while nobody could tell
it is told after all.
"""

from __future__ import annotations

import json
from binascii import crc32
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from allranks_collector.alerts.facts import STALE_NS
from allranks_collector.alerts.rules import Group

if TYPE_CHECKING:
    import duckdb

    from allranks_collector.store import Store

_MAX_TITLE_CHARS = 200


@dataclass(frozen=True)
class RankBefore:
    """A rank of a run's newest attempt, with its last state; its times are wall-clock nanoseconds."""

    writer: int
    rank: int
    state: str
    since_ns: int
    reason: str
    last_ns: int


@dataclass(frozen=True)
class Told:
    """One alert: by family, of what it told."""

    at_ns: int
    told: Mapping[str, list[Hashable]]
    is_recovery: bool


@dataclass(frozen=True)
class Asked:
    """What a program wanted told."""

    writer: int
    rank: int
    at_ns: int
    alert: Mapping[str, str]


@dataclass
class RunBefore:
    """A run that lived when the collector was last here, or of which something was told a while ago.

    `ranks` are in the order in which they came to their states; `asked` is what no alert has told.
    """

    run: int
    id: str
    attempt: int
    ranks: list[RankBefore] = field(default_factory=list[RankBefore])
    told: list[Told] = field(default_factory=list[Told])
    asked: list[Asked] = field(default_factory=list[Asked])


def told_by(group: Group) -> dict[str, list[Any]]:
    """By family, what the readers know by a message about `group`: the event of the alert keeps it."""
    told: dict[str, list[Any]] = {}
    for one in (*group.happenings, *group.causes):
        told.setdefault(one.rule.family, []).append(one.subject)
    return told


_RANKS = """
    WITH stated AS (
        SELECT writer, max(rowid) AS number, arg_max(state, rowid) AS state, arg_max(since_ns, rowid) AS since_ns,
            arg_max(detail, rowid) AS detail FROM states GROUP BY writer),
    newest AS (SELECT * FROM writers WHERE role = 'rank' QUALIFY attempt = max(attempt) OVER (PARTITION BY run)),
    now AS (SELECT * FROM newest JOIN stated USING (writer)),
    wanted AS (
        SELECT run FROM now WHERE state IN ('running', 'stalled', 'unreachable')
        UNION SELECT run FROM events WHERE kind IN ('alerted', 'alert') AND time_ns > $since)
    SELECT run, runs.id, attempt, now.writer, rank, state, since_ns, json_extract_string(detail, '$.reason'),
        coalesce(last_ns, 0)
    FROM now JOIN runs USING (run) LEFT JOIN positions USING (writer)
    WHERE run IN (SELECT run FROM wanted) ORDER BY now.number"""
_EVENTS = """
    SELECT run, kind, events.writer, rank, time_ns, body FROM events LEFT JOIN writers USING (run, writer)
    WHERE run IN (SELECT unnest($runs::INTEGER[])) AND kind IN ('alerted', 'alert') ORDER BY event"""


def read_before(store: Store, now_ns: int) -> list[RunBefore]:
    """The runs that there is something to know of; in a worker thread."""
    found: dict[int, RunBefore] = {}
    with store.cursor() as cursor:
        since = now_ns - STALE_NS
        for run, id_, attempt, *rank in cursor.execute(_RANKS, {"since": since}).fetchall():
            writer, number, state, since_ns, reason, last_ns = rank
            found.setdefault(run, RunBefore(run, id_, attempt)).ranks.append(
                RankBefore(writer, number, state, since_ns, reason or "", last_ns)
            )
        _read_events(cursor, found, since)
    return list(found.values())


def _read_events(cursor: duckdb.DuckDBPyConnection, found: Mapping[int, RunBefore], since: int) -> None:
    rows = cursor.execute(_EVENTS, {"runs": list(found)}).fetchall()
    for run, kind, _, _, time_ns, body in rows:
        if kind == "alerted":
            found[run].told.append(_told(time_ns, json.loads(body)))
    known = {run: {words for told in one.told for words in told.told.get("user", ())} for run, one in found.items()}
    for run, kind, writer, rank, time_ns, body in rows:
        if kind != "alert" or time_ns <= since or rank is None:
            continue
        alert = json.loads(body)
        if words_of(alert) not in known[run]:
            found[run].asked.append(Asked(writer, rank, time_ns, alert))


def _told(at_ns: int, body: Mapping[str, Any]) -> Told:
    told = {family: [_subject(one) for one in subjects] for family, subjects in (body.get("told") or {}).items()}
    return Told(at_ns, told, body.get("rule") == "recovered")


def _subject(value: Any) -> Hashable:
    """As it was before it was JSON."""
    return tuple(value) if isinstance(value, list) else value


def words_of(alert: Mapping[str, str]) -> tuple[str, str, int]:
    """What makes two alerts of programs the same one; short, for it is kept with the alert."""
    return alert.get("title", "")[:_MAX_TITLE_CHARS], alert.get("level", ""), crc32(alert.get("text", "").encode())
