"""What is known of ranks beside their states: last words, error files, kills for want of memory, GPUs."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from allranks_collector import last_words
from allranks_collector.escapes import shown
from allranks_collector.health import ENDED
from allranks_collector.last_words import Words
from allranks_collector.queries.stacks import newest_stacks
from allranks_collector.quorum import odd_ones
from allranks_collector.verdict import SECOND_NS

if TYPE_CHECKING:
    import duckdb

    from allranks_collector.queries.ranks import WriterRow
    from allranks_collector.queries.select import RunRef

# Before a rank's newest record so much of its console is looked at.
_BEFORE_NS = 2 * last_words.SPAN_NS

_ENDS_OF_CONSOLES = f"""
    WITH mine AS (
        SELECT writer, rank FROM writers
        WHERE run = $run AND attempt = $attempt AND rank IN (SELECT unnest($ranks::INTEGER[]))),
    told AS (
        SELECT writer, stream, line, time_ns, text FROM lines
        WHERE time_ns >= $from_ns AND writer IN (SELECT writer FROM mine)
        UNION ALL
        SELECT writer, stream, line, time_ns, text FROM open_lines
        WHERE text <> '' AND writer IN (SELECT writer FROM mine))
    SELECT rank, time_ns, text FROM told JOIN mine USING (writer) WHERE stream > 0
    QUALIFY row_number() OVER (PARTITION BY rank ORDER BY time_ns DESC, stream DESC, line DESC) <= {last_words.LINES}
    ORDER BY rank, time_ns, stream, line"""


_FOR_SO_LONG = re.compile(r" for \d+ s\b")
# The state before the newest one, where that was a stall.
_BEFORE_THE_END = """
    SELECT writer, since_ns, detail FROM (
        SELECT writer, state, since_ns, detail FROM states WHERE writer IN (SELECT unnest(?::INTEGER[]))
        QUALIFY row_number() OVER (PARTITION BY writer ORDER BY states.rowid DESC) = 2)
    WHERE state = 'stalled'"""


@dataclass(frozen=True)
class ConsoleEnd:
    """The end of a rank's console.

    Attributes:
        words: what it says of the rank's end.
        last_ns: when its last line was printed, in the rank's clock.
    """

    words: Words | None
    last_ns: int


@dataclass(frozen=True)
class Gpu:
    """The GPU of a rank: its index on its host, and what NVML calls it."""

    index: int
    name: str
    uuid: str


def console_ends(
    cursor: duckdb.DuckDBPyConnection, run: RunRef, attempt: int | None, rows: Collection[WriterRow]
) -> dict[int, ConsoleEnd]:
    """By rank, how the consoles of these ranks end; those that printed nothing are left out."""
    if not rows:
        return {}
    from_ns = min(row.opened_ns if row.last_ns is None else row.last_ns for row in rows) - _BEFORE_NS
    asked = {"run": run.run, "attempt": attempt, "ranks": [row.rank for row in rows], "from_ns": from_ns}
    printed: dict[int, list[tuple[int, str]]] = {}
    for rank, time_ns, text in cursor.execute(_ENDS_OF_CONSOLES, asked).fetchall():
        printed.setdefault(rank, []).append((time_ns, shown(text, colours=False)))
    return {rank: ConsoleEnd(last_words.read(lines), lines[-1][0]) for rank, lines in printed.items()}


def error_files(cursor: duckdb.DuckDBPyConnection, run: RunRef, attempt: int | None) -> dict[int, dict[str, Any]]:
    """By rank, the exception that its error file of torchelastic tells of."""
    rows = cursor.execute(
        "SELECT rank, body FROM events JOIN writers USING (writer)"
        " WHERE events.run = ? AND kind = 'error_file' AND attempt = ? ORDER BY event",
        [run.run, attempt],
    ).fetchall()
    return {rank: json.loads(body) for rank, body in rows}


def oom_kills(cursor: duckdb.DuckDBPyConnection, run: RunRef, rows: Collection[WriterRow]) -> dict[str, list[int]]:
    """By host, when its ranks have told of kills for want of memory."""
    hosts = {row.writer: row.host for row in rows}
    found: dict[str, list[int]] = {}
    for writer, time_ns in cursor.execute(
        "SELECT writer, time_ns FROM events WHERE run = ? AND kind = 'oom' ORDER BY event", [run.run]
    ).fetchall():
        if writer in hosts:
            found.setdefault(hosts[writer], []).append(time_ns)
    return found


def hangs(cursor: duckdb.DuckDBPyConnection, run: RunRef, rows: Collection[WriterRow]) -> dict[int, tuple[int, str]]:
    """By rank, since when (ns) and how it stood still: those that stood otherwise than most, and never went on."""
    ended_ns = max((row.since_ns or 0 for row in rows if row.state in ENDED), default=0)
    if not ended_ns:
        return {}
    before = cursor.execute(_BEFORE_THE_END, [[row.writer for row in rows if row.state in ENDED]]).fetchall()
    stalls: dict[int, tuple[int, dict[str, Any]]] = {
        writer: (since_ns, json.loads(detail)) for writer, since_ns, detail in before
    }
    stood = {row.rank: stalls[row.writer] for row in rows if row.writer in stalls}
    stood |= {
        row.rank: (row.since_ns, row.told) for row in rows if row.state == "stalled" and row.since_ns is not None
    }
    if not stood:
        return {}
    held = {rank: stall for rank, stall in stood.items() if stall[1].get("how") not in (None, "still")}
    if held and 2 * len(stood) > len(rows) >= 2 * len(held):
        return {rank: (since_ns, _held(told)) for rank, (since_ns, told) in held.items()}
    found = newest_stacks(cursor, run, with_threads=False)
    if found["asked_at"] is None:
        return {}
    if not min(since_ns for since_ns, _ in stood.values()) <= found["asked_at"] * SECOND_NS <= ended_ns:
        return {}  # of another attempt, or of a stall before
    odd = odd_ones(found["groups"])
    most = found["groups"][0]["where"]
    where = {
        rank: f"stood in {each['where']}, and most others in {most}"
        for each in found["groups"]
        if each["answered"]
        for rank in each["ranks"]
    }
    return {rank: (stood[rank][0], where[rank]) for rank in sorted(odd & stood.keys() & where.keys())}


def _held(told: Mapping[str, Any]) -> str:
    """What held a rank, without for how long when that was noticed."""
    reason = _FOR_SO_LONG.sub("", str(told.get("reason") or "held"))
    return f"stood still: {reason}" if told.get("how") == "silent" else f"was {reason}"


def gpu_of(cursor: duckdb.DuckDBPyConnection, row: WriterRow) -> Gpu | None:
    """The GPU of a rank, as far as it has told enough to know."""
    rows = cursor.execute("SELECT body FROM surroundings WHERE writer = ? ORDER BY rowid", [row.writer]).fetchall()
    return choose_gpu(json.loads(rows[-1][0]).get("devices"), row.local_rank) if rows else None


def choose_gpu(told: object, local_rank: int | None) -> Gpu | None:
    """Of the GPUs that a process sees, the one that it computes on; else the one that its local rank stands for."""
    if not isinstance(told, Mapping):
        return None
    devices, used = told.get("visible"), told.get("used")
    if not isinstance(devices, list) or not all(isinstance(device, Mapping) for device in devices):
        return None
    if isinstance(used, list) and len(used) == 1:
        devices = [device for device in devices if device.get("index") == used[0]]
    elif len(devices) > 1 and local_rank is not None:
        devices = devices[local_rank : local_rank + 1]
    if len(devices) != 1 or type(devices[0].get("index")) is not int:
        return None
    (device,) = devices
    return Gpu(device["index"], str(device.get("name") or "")[:100], str(device.get("uuid") or "")[:100])
