"""`logs`: what the ranks of a run printed, merged by time."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allranks_collector.cli.common import CommandError, Http, Json, RunName, UsageError
from allranks_collector.cli.data import span_s
from allranks_collector.cli.local_reader import LocalReader
from allranks_collector.cli.output import clean, error_line
from allranks_collector.cli.reader import open_reader
from allranks_collector.escapes import shown
from allranks_collector.folding import Folder, fold_stream, origin
from allranks_collector.run_ends import ENDED_RUN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from allranks_collector.cli.reader import Reader

    Line = dict[str, Any]

PAGE_LINES = 5000
AROUND_LINES = 40
# Also how long a line that is folded waits for its like of other ranks.
FOLLOW_EVERY_S = 0.4
# A run that has ended may have lines in a spool still.
QUIET_S = 3.0


def logs(
    run: RunName,
    rank: Annotated[str | None, typer.Option("--rank", "-r", help="Only of these ranks, as in 0-7,16.")] = None,
    stream: Annotated[str | None, typer.Option("--stream", help="Only stdout, or stderr.")] = None,
    attempt: Annotated[
        str | None, typer.Option("--attempt", help="Which life of the run, or all; the newest is the default.")
    ] = None,
    grep: Annotated[
        str | None, typer.Option("--grep", "-g", metavar="RE", help="Only lines with this regular expression (RE2).")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Only from then on: 10m, 2h (ago), or 2026-11-20T10:00."),
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Only from before then.")] = None,
    around: Annotated[
        str | None,
        typer.Option("--around", metavar="step=N", help=f"{AROUND_LINES} lines, or --lines, about that step's time."),
    ] = None,
    odd: Annotated[
        bool, typer.Option("--odd", help="Only what one rank alone has printed; numbers are taken as equal.")
    ] = False,
    fold: Annotated[
        bool | None,
        typer.Option("--fold/--no-fold", help="Identical lines of several ranks as one; the default, less for JSON."),
    ] = None,
    lines: Annotated[int | None, typer.Option("--lines", "-n", min=1, help="Only the newest so many.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")] = False,
    http: Http = None,
    json_: Json = False,
) -> None:
    """Show what the ranks printed, by time; each line begins with its host and rank, or all ranks that had it."""
    if lines is not None and lines > PAGE_LINES:
        raise UsageError(f"--lines must be 1 to {PAGE_LINES}; without it you get all")
    if follow and (around is not None or until is not None):
        raise UsageError("--follow goes on with what comes: it cannot be used with --around or --until")
    now = time.time()
    wanted = {
        "ranks": rank,
        "stream": stream,
        "attempt": attempt,
        "grep": grep,
        "begin": None if since is None else moment("--since", since, now),
        "end": None if until is None else moment("--until", until, now),
        "odd": odd or None,
    }
    step = None if around is None else _step(around)
    reader = open_reader(http, os.environ)
    if follow and isinstance(reader, LocalReader):
        raise CommandError("no collector runs: nothing can come that could be followed")
    log = RunLog(reader, run, wanted)
    if step is not None:
        found = log.around(step, lines or AROUND_LINES)
    else:
        found = log.all() if lines is None else log.newest(lines)
    coming = log.follow() if follow else None
    if follow and not json_:
        found = (line for line in found if not line["open"])
    # Of one rank there is nothing to fold, and no reason to wait.
    is_folded = fold if fold is not None else not (json_ or (rank or "").strip().isdecimal())
    told = fold_stream(found) if is_folded else found
    told_later = None if coming is None else _folded(coming) if is_folded else itertools.chain.from_iterable(coming)
    if json_:
        _print_json(told, told_later)
    elif not _print(told, told_later):
        # Not among the lines, which a pipe may take.
        error_line("no lines" + (" that fit" if any(wanted.values()) else ""))


class RunLog:
    """The lines of a run, as a reader gives them."""

    def __init__(self, reader: Reader, run: str, wanted: dict[str, Any]) -> None:
        self._reader = reader
        self._run = run
        self._wanted = wanted
        # What has arrived after this is to be followed; and what of it has been shown already.
        self._newest: int | None = None
        self._shown: set[int] = set()

    def newest(self, count: int) -> Iterator[Line]:
        """The newest lines."""
        yield from self._ask(limit=count)["lines"]

    def around(self, step: int, count: int) -> Iterator[Line]:
        """The lines about the time at which this step was logged."""
        yield from self._ask(step=step, limit=count)["lines"]

    def all(self) -> Iterator[Line]:
        """All lines."""
        after: str | None = "0"
        while after is not None:
            page = self._ask(after=after, limit=PAGE_LINES)
            yield from page["lines"]
            after = page["next"]

    def follow(self) -> Iterator[list[Line]]:
        """What comes in from then on, as often as it is asked for, until the run has ended and nothing comes."""
        quiet_since = time.monotonic()
        while True:
            page = self._ask(since=self._newest, limit=PAGE_LINES)
            self._newest = page["newest"]
            came = [line for line in page["lines"] if not line["open"] and line["number"] not in self._shown]
            yield came
            now = time.monotonic()
            if came:
                quiet_since = now
            elif now - quiet_since >= QUIET_S:
                if self._reader.run(self._run)["state"] in ENDED_RUN:
                    yield [line for line in page["lines"] if line["open"]]
                    return
                quiet_since = now
            if len(page["lines"]) < PAGE_LINES:
                time.sleep(FOLLOW_EVERY_S)

    def _ask(self, **place: Any) -> Any:
        page = self._reader.logs(self._run, {**self._wanted, **place})
        if self._newest is None:
            self._newest = page["newest"]
        elif "after" in place:
            self._shown |= {line["number"] for line in page["lines"] if (line["number"] or 0) > self._newest}
        return page


def moment(flag: str, text: str, now: float) -> float:
    """Unix seconds of a time such as 10m, which is ten minutes ago, or 2026-11-20T10:00, in local time.

    Raises:
        UsageError: it is something else.
    """
    with contextlib.suppress(UsageError):
        return now - span_s(text)
    with contextlib.suppress(ValueError, OverflowError, OSError):
        # Before Python 3.11 a Z is not understood.
        return datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text.strip())).timestamp()
    expected = "a span before now with s, m, h, d or w, such as 10m, or a time such as 2026-11-20T10:00"
    raise UsageError(f"{flag} {text!r} cannot be used: expected {expected}")


def _step(text: str) -> int:
    match = re.fullmatch(r"step=(-?\d{1,18})", text.strip(), re.ASCII)
    if match is None:
        raise UsageError(f"--around {text!r} cannot be used: expected step= and a number, such as step=1204")
    return int(match[1])


def _folded(batches: Iterable[list[Line]]) -> Iterator[Line]:
    """What is followed, folded: each line waits for the next look, but no longer."""
    folder = Folder()
    for turn, batch in enumerate(batches):
        for line in batch:
            folder.add(line, turn)
        yield from folder.pop(turn - 1)
    yield from folder.pop()


def _print(found: Iterable[Line], following: Iterable[Line] | None) -> int:
    """How many lines there were."""
    count = 0
    colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    for lines in (found, following or ()):
        for line in lines:
            sys.stdout.write(f"{clean(origin(line))} {shown(line['text'], colours=colours)}\n")
            count += 1
            if lines is following:
                sys.stdout.flush()
        sys.stdout.flush()
    return count


def _print_json(found: Iterator[Line], following: Iterator[Line] | None) -> None:
    """One list; or, where more will follow, an object a line. Never a character that a terminal acts on."""
    if following is None:
        # The first is asked for before anything is printed: there may be an error in its place.
        before = "["
        for line in found:
            sys.stdout.write(f"{before}\n{json.dumps(line)}")
            before = ","
        sys.stdout.write("[\n]\n" if before == "[" else "\n]\n")
        return
    for lines in (found, following):
        for line in lines:
            sys.stdout.write(f"{json.dumps(line)}\n")
            sys.stdout.flush()
