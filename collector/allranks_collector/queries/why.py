"""Why a run is as it is: the verdict over the ranks of an attempt, with what is known of the first failure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from allranks_collector.queries.claims import rivals, told_claims
from allranks_collector.queries.evidence import console_ends, error_files, gpu_of, hangs, oom_kills
from allranks_collector.queries.figures import LiveStats, load_figures
from allranks_collector.queries.logs import LogRequest, list_logs
from allranks_collector.queries.ranks import WriterRow, newest_attempt, read_writers
from allranks_collector.queries.runs import nobody_seen, seconds
from allranks_collector.queries.stacks import newest_stacks
from allranks_collector.quorum import odd_ones
from allranks_collector.roll_call import Place, call_roll
from allranks_collector.verdict import SECOND_NS, SILENT, Fate, RankFacts, Verdict, is_vague, judge
from allranks_collector.why_lines import tell

if TYPE_CHECKING:
    from collections.abc import Callable

    import duckdb

    from allranks_collector.queries.line_order import LineOrders
    from allranks_collector.queries.select import RunRef

LAST_LINES = 8
MAX_METRICS = 20
# How far an estimated clock may be wrong; and one that is taken for the collector's own, because nothing is known.
_DOUBT_NS, _UNKNOWN_NS = 20_000_000, SECOND_NS
# How long a rank has been silent when it is called unreachable, where that is not told.
_SILENT_S = 5.0
# A kill for want of memory is seen in beats, of any rank of the host, within so much of the death.
_OOM_NS = 10 * SECOND_NS


def why(
    cursor: duckdb.DuckDBPyConnection,
    run: RunRef,
    *,
    attempt: int | None = None,
    live: LiveStats | None = None,
    last_seen: Callable[[int], int | None] = nobody_seen,
    orders: LineOrders | None = None,
    is_brief: bool = False,
) -> dict[str, Any]:
    """Why an attempt (None: the newest) is as it is.

    Args:
        is_brief: without the metrics and the lines of the first failure, which cost the most.

    Returns:
        `outcome`: as `verdict.Verdict` has it. `verdict`: that in one line. `lines`: in
        five. `first`: the first failure, with what is known of it, its `metrics` and `last_lines`; None where there
        is none. `followers`: those after it, by time. `stalled`: the ranks that stand still, those that are held
        first, then the furthest behind. `stands`: where they do, in one line, as far as they have been asked since;
        else empty. `finished`: the ranks that have ended well. `roll_call`: how many are `present` of `world_size`,
        who is `missing`, `text`, and `claims`: what is odd about who they say they are, one sentence each.
    """
    attempt = newest_attempt(cursor, run) if attempt is None else attempt
    apart = rivals(cursor, [run.run])
    rows = read_writers(cursor, run, attempt)
    writers = {row.rank: row for row in rows if row.role != "child" and row.writer not in apart}
    world = max((row.world_size or 0 for row in writers.values()), default=0)
    roll = call_roll(world, {rank: Place(row.host, row.local_rank) for rank, row in writers.items()})
    facts = _all_facts(cursor, run, attempt, writers, last_seen)
    stands = _stands(cursor, run, [writers[each.rank] for each in facts if each.state == "stalled"])
    odd = odd_ones(stands["groups"])
    hung = hangs(cursor, run, writers.values())
    for at, each in enumerate(facts):
        if each.rank in hung:
            since_ns, how = hung[each.rank]
            facts[at] = replace(each, hung_as=how, hung_ns=since_ns)
    verdict = judge(
        [
            *(replace(each, is_odd=each.rank in odd) for each in facts),
            *(RankFacts(rank, "expected") for rank in roll.missing),
        ]
    )
    first = None
    if verdict.first is not None:
        row = writers[verdict.first.facts.rank]
        wanted = LogRequest(ranks=[row.rank], attempt=attempt, limit=LAST_LINES)
        first = {
            **_told(verdict.first),
            "local_rank": row.local_rank,
            "exit_code": row.told.get("exit_code"),
            "signal": row.told.get("signal"),
            "exception": verdict.first.facts.exception,
            "gpu": asdict(gpu) if (gpu := gpu_of(cursor, row)) else None,
            "words": None if is_brief else _words(cursor, run, attempt, verdict.first, row),
            "lost": _lost_with(verdict.first, verdict, writers),
            "metrics": [] if is_brief else _metrics(cursor, run, row.writer, live),
            "last_lines": [] if is_brief else list_logs(cursor, run, wanted, orders)["lines"],
        }
    began_ns = 0 if verdict.first is None else verdict.first.likely_ns
    answer: dict[str, Any] = {
        "run": run.id,
        "attempt": attempt,
        "outcome": verdict.outcome,
        "first": first,
        "followers": [
            {**_told(fate), "after": (fate.likely_ns - began_ns) / SECOND_NS} for fate in verdict.followers
        ],
        "stalled": [
            {
                "rank": facts.rank,
                "host": facts.host,
                "last_step": facts.last_step,
                "reason": facts.reason,
                "held": facts.is_held,
                "odd": facts.is_odd,
            }
            for facts in verdict.stalled
        ],
        "stands": stands["text"],
        "finished": [each.rank for each in facts if each.state == "finished"],
        "last_step": max((row.last_step for row in writers.values() if row.last_step is not None), default=None),
        "roll_call": {
            "world_size": world,
            "present": roll.present,
            "missing": [{"rank": rank, "host": host} for rank, host in roll.missing.items()],
            "text": roll.text,
            "claims": told_claims(cursor, run, attempt),
        },
    }
    lines = tell(answer)
    return {**answer, "verdict": lines[0], "lines": lines}


def _all_facts(
    cursor: duckdb.DuckDBPyConnection,
    run: RunRef,
    attempt: int | None,
    writers: Mapping[int, WriterRow],
    last_seen: Callable[[int], int | None],
) -> list[RankFacts]:
    """What is known of each rank that has come."""
    ooms, errors = oom_kills(cursor, run, writers.values()), error_files(cursor, run, attempt)
    facts: dict[int, RankFacts] = {}
    for rank, row in writers.items():
        found = _facts(row, last_seen(row.writer), ooms.get(row.host, []))
        if found.exception is None and found.state in ("dead", "failed") and rank in errors:
            found = replace(found, exception=errors[rank])
        facts[rank] = found
    ends = console_ends(cursor, run, attempt, [writers[rank] for rank in facts if is_vague(facts[rank])])
    for rank, end in ends.items():
        found, row = facts[rank], writers[rank]
        early_ns = found.early_ns
        if early_ns and found.at_ns is not None:
            early_ns = max(0, min(early_ns, found.at_ns - end.last_ns - (row.offset_ns or 0)))
        facts[rank] = replace(found, words=end.words, early_ns=early_ns)
    return list(facts.values())


def _words(
    cursor: duckdb.DuckDBPyConnection, run: RunRef, attempt: int | None, first: Fate, row: WriterRow
) -> str | None:
    """The line of its console that tells most of its end."""
    words = first.facts.words
    if words is None and first.kind is not SILENT:
        end = console_ends(cursor, run, attempt, [row]).get(row.rank)
        words = None if end is None else end.words
    return None if words is None else words.line


def _stands(cursor: duckdb.DuckDBPyConnection, run: RunRef, stalled: Sequence[WriterRow]) -> dict[str, Any]:
    """Where ranks stand that stand still, as `groups` and `text`; empty if nobody asked since."""
    since_ns = min((row.since_ns for row in stalled if row.since_ns is not None), default=None)
    if since_ns is not None:
        found = newest_stacks(cursor, run, with_threads=False)
        if found["asked_at"] is not None and found["asked_at"] * SECOND_NS >= since_ns:
            return found
    return {"groups": [], "text": ""}


def _lost_with(first: Fate, verdict: Verdict, writers: Mapping[int, WriterRow]) -> list[int]:
    """The ranks of its host, where none of them is heard: a node or its network is gone, and not a rank alone."""
    silent = {fate.facts.rank for fate in (first, *verdict.followers) if fate.kind is SILENT}
    there = {rank for rank, row in writers.items() if row.host == first.facts.host}
    return sorted(there) if there <= silent else []


def _facts(row: WriterRow, seen_ns: int | None, ooms: Sequence[int]) -> RankFacts:
    told, state = row.told, row.state or "running"
    at_ns, doubt_ns, early_ns = row.ended_ns, 0, 0
    is_lost = state == "dead" and bool(told.get("lost"))
    if (state == "unreachable" or is_lost) and row.since_ns is not None:
        # A collector that was started again has heard nobody before.
        is_heard = seen_ns is not None and seen_ns < row.since_ns
        at_ns = seen_ns if is_heard else row.since_ns - round(told.get("silent_s", _SILENT_S) * SECOND_NS)
    elif at_ns is not None and row.since_ns == row.last_ns:
        doubt_ns = _UNKNOWN_NS if row.offset_ns is None else _DOUBT_NS
    elif at_ns is not None and told.get("unseen") and row.newest_ns is not None:
        early_ns = max(0, at_ns - row.newest_ns)
    code = told.get("exit_code")
    kills = told.get("oom_kills") or (at_ns is not None and sum(abs(ns - at_ns) <= _OOM_NS for ns in ooms))
    return RankFacts(
        row.rank,
        state,
        at_ns,
        doubt_ns,
        early_ns,
        host=row.host,
        pid=row.pid,
        local_rank=row.local_rank,
        exit_code=code if type(code) is int else None,  # a CLOSE says what it likes
        signal=told.get("signal"),
        exception=told.get("exception"),
        last_step=row.last_step,
        oom_kills=int(kills or 0),
        reason=told.get("reason"),
        is_held=told.get("how") not in (None, "still"),
        is_lost=is_lost,
    )


def _told(fate: Fate) -> dict[str, Any]:
    facts = fate.facts
    return {
        "rank": facts.rank,
        "host": facts.host,
        "pid": facts.pid,
        "kind": fate.kind.name,
        "cause": fate.what,
        "at": seconds(None if facts.at_ns is None else fate.likely_ns),
        "last_step": facts.last_step,
    }


def _metrics(
    cursor: duckdb.DuckDBPyConnection, run: RunRef, writer: int, live: LiveStats | None
) -> list[dict[str, Any]]:
    """The last values of the rank's metrics, those of the newest steps first."""
    load_figures(cursor, [run.run], live)
    rows = cursor.execute(
        "SELECT key, last_step, last FROM figures WHERE writer = ? AND kind = 'metric' AND count > 0"
        f" ORDER BY last_step DESC, key LIMIT {MAX_METRICS}",
        [writer],
    ).fetchall()
    return [{"key": key, "step": step, "value": value} for key, step, value in rows]
