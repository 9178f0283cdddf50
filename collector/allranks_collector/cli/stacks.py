"""`stacks`: where the ranks of a run stand, grouped; with the stacks of all threads if asked for."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Annotated, Any

import typer

from allranks_bus.http_client import Refused
from allranks_collector.cli.common import CommandError, Http, Json, RunName
from allranks_collector.cli.output import age, clean, console, print_json
from allranks_collector.cli.reader import open_reader


def stacks(
    run: RunName,
    rank: Annotated[
        str | None, typer.Option("--rank", "-r", metavar="RANKS", help="Ask only these, as in 0-3,7.")
    ] = None,
    last: Annotated[bool, typer.Option("--last", help="Ask nobody: show what they answered last.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Also the stacks of all threads.")] = False,
    http: Http = None,
    json_: Json = False,
) -> None:
    """Ask the ranks of a run where they stand, and group them by it.

    A rank whose C code holds the interpreter is asked by a signal, where it runs on the collector's host.
    """
    try:
        found = open_reader(http, os.environ).stacks(run, rank, ask=not last)
    except Refused as error:
        if error.status != HTTPStatus.CONFLICT:
            raise
        raise CommandError(f"{error}; --last shows where they stood when they last were") from None
    if json_:
        print_json(found)
        return
    out = console()
    if found["asked_at"] is None:
        out.print("Nobody has been asked.")
        return
    if last:
        out.print(f"Asked {age(found['asked_at'], time.time())}.")
    for group in found["groups"]:
        out.print(clean(group["text"]), markup=False, soft_wrap=True)
    if full:
        for line in full_stacks(found):
            out.print(clean(line), markup=False, soft_wrap=True)


def full_stacks(found: Mapping[str, Any]) -> Iterator[str]:
    """The stacks of all ranks as lines, innermost frame first."""
    for rank in found["ranks"]:
        for thread in rank["threads"]:
            name = "main thread" if thread["main"] else f"thread {thread['name'] or hex(thread['id'])}"
            yield ""
            yield f"rank {rank['rank']}, {name}:"
            for file, line, function in thread["frames"]:
                yield f"  {file}:{line} in {function}"
