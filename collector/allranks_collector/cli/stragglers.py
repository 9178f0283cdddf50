"""`stragglers`: which ranks the others wait for, what that costs, and in which section."""

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

_SHOWN = 20


def stragglers(
    run: RunName,
    attempt: Annotated[int | None, typer.Option(help="Which life of the run; the newest is the default.")] = None,
    http: Http = None,
    json_: Json = False,
) -> None:
    """Show which ranks the others wait for: seconds and rank-hours lost, and the section that costs them.

    It is measured by run.section("data") and the like; sections in which ranks wait for each other (sync, barrier,
    all_reduce, all_gather, reduce_scatter, broadcast …) are not counted as work.
    """
    reader = open_reader(http, os.environ)
    check_attempt(reader, run, attempt)
    found = reader.stragglers(run, attempt)
    show(found, view, json_=json_)


def view(found: Mapping[str, Any]) -> list[RenderableType]:
    """The answer for people."""
    if found["measured"] < 2:
        return ['Nothing to compare: mark what ranks do before they wait, as in `with run.section("data"):`.']
    parts: list[RenderableType] = []
    lost, seconds = found["lost_s"], found["seconds"]
    share = f" ({100 * lost / seconds:.0f} %)" if seconds else ""
    hours = found["rank_hours"]
    parts.append(
        f"{lost:,.1f} s of {seconds:,.0f} s{share} went to waiting for the slowest: {hours:,.2f} rank-hours."
    )
    slow = [one for one in found["ranks"] if one["slow"]]
    if slow:
        rows = [
            (one["rank"], one["host"] or "", *_costs(one), one["section"] or "", _steps(one["worst_steps"]))
            for one in slow[:_SHOWN]
        ]
        names = ("rank", "host", "lost", "rank-hours", "section", "worst at steps")
        parts.append(table(names, rows, right=("rank", "lost", "rank-hours")))
    else:
        parts.append("No rank is slower than the others by more than chance.")
    if len(slow) > _SHOWN:
        parts.append(f"and {len(slow) - _SHOWN:,} more ranks")
    parts += [
        f"{one['host']} had slow ranks in {len(one['earlier'])} earlier runs too: {_runs(one['earlier'])}."
        for one in found["hosts"]
        if one["earlier"]
    ]
    return [cell(part) if isinstance(part, str) else part for part in parts]


def _costs(one: Mapping[str, Any]) -> tuple[str, str]:
    return f"{one['lost_s']:,.1f} s", f"{one['rank_hours']:,.2f}"


def _steps(steps: list[int] | None) -> str:
    return "" if steps is None else f"{steps[0]}–{steps[1]}"


def _runs(earlier: list[Mapping[str, Any]], most: int = 3) -> str:
    names = [f"{one['run']} ({one['lost_s']:,.0f} s)" for one in earlier[:most]]
    return ", ".join(names) + (", …" if len(earlier) > most else "")
