"""`why`: what failed first, and what to do, in five lines."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from allranks_collector.cli.common import Http, Json, RunName
from allranks_collector.cli.output import cell, console, print_json
from allranks_collector.cli.reader import check_attempt, open_reader

_STYLES = {"failed": "bold red", "stopped": "yellow", "stalled": "bold yellow"}


def why(
    run: RunName,
    attempt: Annotated[int | None, typer.Option(help="Which life of the run; the newest is the default.")] = None,
    http: Http = None,
    json_: Json = False,
) -> None:
    """Say which rank failed first and why, who followed, who is missing, and what to do."""
    reader = open_reader(http, os.environ)
    check_attempt(reader, run, attempt)
    found = reader.why(run, attempt)
    if json_:
        print_json(found)
        return
    out = console()
    for at, line in enumerate(found["lines"]):
        out.print(cell(line, _STYLES.get(found["outcome"], "bold") if at == 0 else ""), soft_wrap=True)
