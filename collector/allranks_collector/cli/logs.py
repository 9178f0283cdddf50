"""`logs`: what the ranks of a run printed, merged by time."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allranks_collector.cli.common import CommandError, Http, Json, RunName, UsageError
from allranks_collector.cli.output import clean
from allranks_collector.cli.reader import LocalReader, open_reader
from allranks_collector.escapes import shown
from allranks_collector.health import ENDED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allranks_collector.cli.reader import Reader

    Line = dict[str, Any]

PAGE_LINES = 5000
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
    lines: Annotated[int | None, typer.Option("--lines", "-n", min=1, help="Only the newest so many.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")] = False,
    http: Http = None,
    json_: Json = False,
) -> None:
    """Show what the ranks printed, by time; each line begins with its host and rank."""
    reader = open_reader(http, os.environ)
    if follow and isinstance(reader, LocalReader):
        raise CommandError("no collector runs: nothing can come that could be followed")
    if lines is not None and lines > PAGE_LINES:
        raise UsageError(f"--lines must be 1 to {PAGE_LINES}; without it you get all")
    log = RunLog(reader, run, {"ranks": rank, "stream": stream, "attempt": attempt})
    found = log.newest(lines) if lines is not None else log.all()
    if json_:
        _print_json(found, log.follow() if follow else None)
        return
    colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    for line in found:
        if not (follow and line["open"]):
            _print(line, colours=colours)
    for line in log.follow() if follow else ():
        _print(line, colours=colours)


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

    def all(self) -> Iterator[Line]:
        """All lines."""
        after: str | None = "0"
        while after is not None:
            page = self._ask(after=after, limit=PAGE_LINES)
            yield from page["lines"]
            after = page["next"]

    def follow(self) -> Iterator[Line]:
        """What comes in from then on, until the run has ended and nothing comes any more."""
        quiet_since = time.monotonic()
        while True:
            page = self._ask(since=self._newest, limit=PAGE_LINES)
            self._newest = page["newest"]
            came = [line for line in page["lines"] if not line["open"] and line["number"] not in self._shown]
            yield from came
            now = time.monotonic()
            if came:
                quiet_since = now
            elif now - quiet_since >= QUIET_S:
                if self._reader.run(self._run)["state"] in ENDED:
                    yield from (line for line in page["lines"] if line["open"])
                    return
                quiet_since = now
            time.sleep(FOLLOW_EVERY_S)

    def _ask(self, **place: Any) -> Any:
        page = self._reader.logs(self._run, {**self._wanted, **place})
        if self._newest is None:
            self._newest = page["newest"]
        elif "after" in place:
            self._shown |= {line["number"] for line in page["lines"] if (line["number"] or 0) > self._newest}
        return page


def _print(line: Line, *, colours: bool) -> None:
    sys.stdout.write(f"{clean(line['host'])}:{line['rank']} {shown(line['text'], colours=colours)}\n")
    sys.stdout.flush()


def _print_json(found: Iterator[Line], following: Iterator[Line] | None) -> None:
    """One list; or, where more will follow, an object a line. Never a character that a terminal acts on."""
    if following is None:
        sys.stdout.write("[")
        between = "\n"
        for line in found:
            sys.stdout.write(f"{between}{json.dumps(line)}")
            between = ",\n"
        sys.stdout.write("\n]\n")
        return
    for lines in (found, following):
        for line in lines:
            sys.stdout.write(f"{json.dumps(line)}\n")
            sys.stdout.flush()
