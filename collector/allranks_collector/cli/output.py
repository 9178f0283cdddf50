"""What the commands print: tables for people, JSON for programs, and text from ranks made harmless.

Colours follow rich: none where the output is no terminal or NO_COLOR is set. A table that goes into a pipe is as
wide as it needs to be, and one row stays one line. In a terminal what is long, names and reasons, is wrapped; where
that is not enough a table is as in a pipe, and the terminal wraps its rows.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from rich.console import ConsoleOptions, RenderableType, RenderResult

PIPE_WIDTH = 1000
# What is longer than this may be wrapped in a table. Numbers, states and ids are never: a column of single letters
# can be read by nobody.
WRAPPED_FROM = 15
NOTHING = "–"
STATE_STYLES = {
    "expected": "dim",
    "running": "cyan",
    "stalled": "bold yellow",
    "unreachable": "yellow",
    "dead": "bold red",
    "killed": "bold red",
    "preempted": "bold yellow",
    "failed": "bold red",
    "finished": "green",
    "ok": "green",
    "warn": "yellow",
    "fail": "bold red",
}


def console(*, stderr: bool = False, redrawn: bool = False) -> Console:
    """Where tables go: the standard output (or error) as it is now.

    The terminal wraps what is too long for it; not so where a part of the screen is `redrawn`: its lines are counted.
    """
    probe = Console(stderr=stderr, highlight=False, soft_wrap=not redrawn)
    if probe.is_terminal:
        return probe
    return Console(stderr=stderr, highlight=False, soft_wrap=not redrawn, width=PIPE_WIDTH)


def print_json(data: object) -> None:
    """Data for programs: valid JSON, so no NaN."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n")


def error_line(text: str) -> None:
    """One line on stderr, whatever the text holds."""
    sys.stderr.write(f"allranks: {clean(' '.join(text.split()))}\n")


def clean(value: object) -> str:
    """Text that cannot move the cursor or colour the terminal: what ranks say is never trusted."""
    return "".join(c if c.isprintable() else "·" for c in str(value))


def cell(value: object, style: str = "") -> Text:
    """A table's cell; never markup."""
    return Text(NOTHING if value is None or value == "" else clean(value), style=style)


def state_cell(state: object) -> Text:
    """A state, in its colour."""
    return cell(state, STATE_STYLES.get(str(state), ""))


class _Rows(Table):
    """A table that is as wide as it needs to be where its columns cannot be as narrow as the terminal."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        between = 3 * (len(self.columns) - 1)
        least = sum(column.min_width or 0 for column in self.columns) + between
        width = options.max_width if least <= options.max_width else PIPE_WIDTH
        return super().__rich_console__(console, options.update(max_width=width))


def table(columns: Sequence[str], rows: Iterable[Sequence[Text | object]], *, right: Sequence[str] = ()) -> Table:
    """A plain table; the columns named in `right` hold numbers. No header where no column has a name."""
    made = _Rows(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, show_header=any(columns))
    cells = [[entry if isinstance(entry, Text) else cell(entry) for entry in row] for row in rows]
    for at, column in enumerate(columns):
        longest = max((len(column), *(row[at].cell_len for row in cells)))
        least = max(len(column), min(longest, WRAPPED_FROM))
        made.add_column(
            column,
            justify="right" if column in right else "left",
            overflow="fold",
            min_width=least,
            no_wrap=longest == least,
        )
    for row in cells:
        made.add_row(*row)
    return made


def age(at: object, now: float | None = None) -> str | None:
    """How long ago a unix time was, in the largest unit; None stays None."""
    return duration((time.time() if now is None else now) - at) if isinstance(at, (int, float)) else None


def duration(seconds: float) -> str:
    """A time span in the unit that suits it."""
    seconds = max(seconds, 0.0)
    for limit, unit, name in ((100, 1, "s"), (6000, 60, "min"), (180_000, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86_400:.0f} d"


def size(count: object) -> str | None:
    """Bytes in the unit that suits them."""
    if not isinstance(count, (int, float)):
        return None
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 10 else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def number(value: object) -> str | None:
    """A metric's value in four digits; None stays None."""
    return f"{value:.4g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def runs_table(runs: Sequence[Mapping[str, Any]], now: float) -> Table:
    """Runs, one a row."""
    return table(
        ("id", "name", "project", "state", "ranks", "step", "created"),
        (
            (
                run["id"],
                run.get("name"),
                run.get("project"),
                state_cell(run.get("state")),
                f"{run.get('ranks_seen', NOTHING)}/{run.get('world_size', NOTHING)}",
                run.get("last_step"),
                age(run.get("created_at"), now),
            )
            for run in runs
        ),
        right=("ranks", "step", "created"),
    )


def ranks_table(ranks: Sequence[Mapping[str, Any]], now: float) -> Table:
    """Ranks, one a row."""
    return table(
        ("rank", "state", "step", "seen", "host", "pid", "attempt", "events", "why"),
        (
            (
                rank["rank"],
                state_cell(rank.get("state")),
                rank.get("last_step"),
                age(rank.get("last_seen"), now),
                rank.get("host"),
                rank.get("pid"),
                rank.get("attempt"),
                rank.get("events"),
                ending(rank),
            )
            for rank in ranks
        ),
        right=("rank", "step", "seen", "pid", "attempt", "events"),
    )


def ending(rank: Mapping[str, Any]) -> str | None:
    """What is known of a rank's end, in a few words."""
    exception = rank.get("exception")
    if isinstance(exception, dict):
        return f"{exception.get('type', 'error')}: {exception.get('message', '')}"
    if exception:
        return str(exception)
    signal_name = rank.get("signal")
    if signal_name is not None:
        return f"signal {signal_name}"
    if rank.get("reason"):
        return str(rank["reason"])
    code = rank.get("exit_code")
    return f"exit code {code}" if code else None


def show(
    found: Mapping[str, Any], view: Callable[[Mapping[str, Any]], Iterable[RenderableType]], *, json_: bool
) -> None:
    """An answer of the collector: as JSON, or as `view` has it for people."""
    if json_:
        print_json(found)
        return
    for part in view(found):
        console().print(part)
