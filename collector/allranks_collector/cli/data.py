"""What is stored, read and removed: `runs`, `ranks`, `export`, `rm`."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from allranks_collector.cli.common import CommandError, Http, Json, RunName, UsageError
from allranks_collector.cli.output import clean, console, print_json, ranks_table, runs_table
from allranks_collector.cli.reader import check_attempt, open_reader
from allranks_collector.health import State
from allranks_collector.roll_call import Place, call_roll
from allranks_collector.run_ends import ENDED_RUN

_RUN_STATES = tuple(sorted({*(state.value for state in State), *ENDED_RUN}))
_SPAN_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class What(str, Enum):
    """What of a run can be exported."""

    METRICS = "metrics"
    SYSTEM = "system"
    EVENTS = "events"
    RANKS = "ranks"
    CONFIG = "config"
    SUMMARY = "summary"


class Format(str, Enum):
    """How it can be written."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


def runs(
    project: Annotated[str | None, typer.Option("--project", "-p", help="Only of this project.")] = None,
    group: Annotated[str | None, typer.Option("--group", "-g", help="Only of this group.")] = None,
    state: Annotated[str | None, typer.Option("--state", help="Only in this state.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many, newest first.")] = 50,
    http: Http = None,
    json_: Json = False,
) -> None:
    """List the runs."""
    if state is not None and state not in _RUN_STATES:
        raise UsageError(f"--state {state!r} cannot be used: expected one of {', '.join(_RUN_STATES)}")
    found = open_reader(http, os.environ).runs(project=project, group=group, state=state, limit=limit)
    if json_:
        print_json(found)
    elif found:
        console().print(runs_table(found, time.time()))
    elif project or group or state:
        console().print("No runs that fit.")
    else:
        console().print("No runs yet: allranks.init() in a program begins one, and allranks demo shows one.")


def ranks(
    run: RunName,
    attempt: Annotated[int | None, typer.Option(help="Which life of the run; the newest is the default.")] = None,
    http: Http = None,
    json_: Json = False,
) -> None:
    """List the ranks of a run, with their states and how they ended."""
    reader = open_reader(http, os.environ)
    check_attempt(reader, run, attempt)
    found = reader.ranks(run, attempt)
    if json_:
        print_json(found)
        return
    console().print(ranks_table(found, time.time()))
    for line in (_roll_call(found), *reader.claims(run, attempt)):
        console().print(clean(line), markup=False, soft_wrap=True)


def _roll_call(ranks: Sequence[Mapping[str, Any]]) -> str:
    """Who has come, in one line."""
    came = {rank["rank"]: Place(rank["host"], rank["local_rank"]) for rank in ranks if rank["host"] is not None}
    return call_roll(len(ranks), came).text


def export(
    run: RunName,
    what: Annotated[What, typer.Argument(help="What of it.")],
    format_: Annotated[Format, typer.Option("--format", "-f", help="How it is written.")] = Format.JSONL,
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="Where to; - is stdout.")] = "-",
    http: Http = None,
) -> None:
    """Write a run's data as a file that other tools read."""
    if output == "-" and format_ is Format.PARQUET and sys.stdout.isatty():
        raise UsageError("parquet is not for the terminal: name a file with -o FILE")
    reader = open_reader(http, os.environ)
    target = None if output == "-" else Path(output)
    try:
        # Beside the target, so that it appears there whole or not at all.
        with tempfile.TemporaryDirectory(prefix=".allranks-export-", dir=target.parent if target else None) as folder:
            made = Path(folder, "table")
            reader.export(run, what.value, format_.value, made)
            if target:
                made.replace(target)
                return
            with open(made, "rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandError(f"cannot write {target or 'the export'}: {error.strerror or error}") from None


def remove(
    names: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="Which runs.")] = None,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="SPAN", help="All ended runs older than 30d, 12h …")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also a run that is running.")] = False,
    http: Http = None,
    json_: Json = False,
) -> None:
    """Remove runs with all that is stored of them."""
    if not names and older_than is None:
        raise UsageError("name the runs to remove, or give --older-than")
    reader = open_reader(http, os.environ)
    chosen = [reader.run(name) for name in names or []]
    if older_than is not None:
        chosen += ended_before(reader.runs(limit=100_000), time.time() - span_s(older_than))
    chosen = list({run["id"]: run for run in chosen}.values())
    if chosen and not yes:
        _confirm(chosen, can_ask=not json_ and sys.stdin.isatty())
    for run in chosen:
        reader.remove(run["id"], force=force)
    if json_:
        print_json([{"id": run["id"], "removed": True} for run in chosen])
    else:
        console().print(f"Removed {_count(chosen)}.")


def _confirm(chosen: list[dict[str, Any]], *, can_ask: bool) -> None:
    if not can_ask:
        raise UsageError(f"{_count(chosen)} would be removed for good: confirm it with --yes")
    console().print(runs_table(chosen, time.time()))
    if not typer.confirm(f"Remove {_count(chosen)} for good?"):
        raise typer.Exit(1)


def _count(runs: list[dict[str, Any]]) -> str:
    return f"{len(runs)} run" + ("" if len(runs) == 1 else "s")


def ended_before(runs: list[dict[str, Any]], limit: float) -> list[dict[str, Any]]:
    """Those of `runs` that ended, or were last heard of, before the unix time `limit`."""
    return [
        run
        for run in runs
        if run.get("state") != "running"
        and (run.get("ended_at") or run.get("last_seen") or run["created_at"]) < limit
    ]


def span_s(text: str) -> float:
    """Seconds of a span such as 30d, 12h, 45m, 90s, 2w.

    Raises:
        UsageError: it is something else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip())
    if match is None:
        raise UsageError(f"--older-than {text!r} cannot be used: expected a number with s, m, h, d or w, such as 30d")
    return float(match[1]) * _SPAN_S[match[2]]
