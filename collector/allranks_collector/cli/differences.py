"""`diff`: what differs between the ranks of a run, and values that should agree and do not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allranks_collector.cli.common import Http, Json, RunName
from allranks_collector.cli.output import cell, show, table
from allranks_collector.cli.reader import check_attempt, open_reader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType


def diff(
    run: RunName,
    attempt: Annotated[int | None, typer.Option(help="Which life of the run; the newest is the default.")] = None,
    http: Http = None,
    json_: Json = False,
) -> None:
    """Show what differs between the ranks of a run: code, packages, drivers, clocks, environment, configuration.

    And values that should agree (lr, loss_scale, and those of run.agree): the first step at which they do not.
    """
    reader = open_reader(http, os.environ)
    check_attempt(reader, run, attempt)
    found = reader.differences(run, attempt)
    show(found, view, json_=json_)


def view(found: Mapping[str, Any]) -> list[RenderableType]:
    """The answer for people."""
    parts: list[RenderableType] = []
    ranks, told = found["ranks"], found["told"]
    if found["diverged"]:
        rows = [(one["name"], one["step"], cell(one["text"])) for one in found["diverged"]]
        parts += [table(("should agree", "from step", "who has what"), rows, right=("from step",)), ""]
    if found["differences"]:
        rows = [(one["title"], one["name"], cell(one["text"])) for one in found["differences"]]
        parts += [table(("what", "name", "who has what"), rows), ""]
    elif told:
        parts.append("Nothing differs in what the ranks said of their surroundings.")
    if found["compared"] and not found["diverged"]:
        parts.append(f"{_agreed(len(found['compared']))}: {_some(found['compared'])}.")
    if told < ranks:
        parts.append(f"{told:,} of {ranks:,} ranks have said what surrounds them.")
    return [cell(part) if isinstance(part, str) and part else part for part in parts]


def _agreed(count: int) -> str:
    return "One value that should agree does" if count == 1 else f"{count} values that should agree do"


def _some(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
