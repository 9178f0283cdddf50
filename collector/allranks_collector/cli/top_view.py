"""A run on one screen: header, a grid of ranks, who is in trouble or behind, the last lines. Pure: no HTTP, no clock.

Every line fits the width that it is made for, whatever ranks have said; the whole fits the height where there is one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.text import Text

from allranks_collector.cli.output import STATE_STYLES, age, clean, ending, number
from allranks_collector.escapes import shown
from allranks_collector.folding import origin

if TYPE_CHECKING:
    from collections.abc import Sequence

    Json = dict[str, Any]

# state → its cell, and that for terminals without Unicode; the worst first: a cell of several ranks shows that one.
CELLS: dict[str, tuple[str, str]] = {
    "dead": ("✖", "X"),
    "failed": ("✗", "x"),
    "stalled": ("▲", "^"),
    "unreachable": ("?", "?"),
    "expected": ("·", "."),
    "running": ("■", "#"),
    "finished": ("□", "o"),
}
_OTHER = ("◇", "%")
_WORST = {state: place for place, state in enumerate(CELLS)}
TROUBLED = ("dead", "failed", "stalled", "unreachable")
_GROUP = 8
_MOST_TROUBLED = 4
_MOST_SLOW = 5
_LINES = 10
# A rank is behind that lacks more steps than others take in this time.
_BEHIND_S = 2.0
# Beside the grid, these many lines are for the console at least.
_LEAST_LINES = 3


@dataclass(frozen=True)
class Loss:
    """The newest loss over all ranks that have logged it."""

    key: str
    step: int
    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Seen:
    """The run as it was last seen.

    Attributes:
        ranks: as the API lists them.
        pace: steps a second; None where it is not known, or nothing moves.
        lines: the newest of the console, folded, oldest first.
        now: Unix seconds.
        problem: why nothing newer is known; empty where all is well.
    """

    run: Json
    ranks: Sequence[Json]
    now: float
    pace: float | None = None
    loss: Loss | None = None
    lines: Sequence[Json] = field(default_factory=list[Any])
    problem: str = ""


def screen(seen: Seen, width: int, height: int | None = None, *, is_unicode: bool = True) -> list[Text]:
    """The run in lines of at most `width` columns, and of at most `height` where that is given."""
    states = [str(rank["state"]) for rank in seen.ranks]
    above = header(seen, width)
    below = legend(states, width, is_unicode=is_unicode)
    notes = [*troubled(seen), *slowest(seen)]
    room = len(states) if height is None else height - len(above) - len(below) - len(notes) - 3 - _LEAST_LINES
    cells = grid(states, width, max(1, room), is_unicode=is_unicode)
    screen_ = [*above, Text(), *cells, *below, *([Text(), *notes] if notes else [])]
    left = _LINES if height is None else height - len(screen_) - 1
    if left > 0 and seen.lines:
        screen_ += [Text(), *(_console_line(line) for line in seen.lines[-left:])]
    for line in screen_:
        line.truncate(width, overflow="ellipsis")
    return screen_ if height is None else screen_[:height]


def header(seen: Seen, width: int) -> list[Text]:
    """What run it is, how it does, and what came of it by now."""
    run = seen.run
    present = sum(1 for rank in seen.ranks if rank["state"] != "expected")
    parts = [
        Text(clean(run.get("name") or run["id"]), "bold"),
        Text(clean(run["id"]), "dim"),
        _state(str(run.get("state"))),
        Text(f"{present:,} of {max(len(seen.ranks), run.get('world_size') or 0):,} ranks"),
        Text("no step yet" if run.get("last_step") is None else f"step {run['last_step']:,}"),
    ]
    if seen.pace is not None:
        parts.append(Text(f"{number(seen.pace)} steps/s"))
    if seen.loss is not None:
        parts.append(_loss(seen.loss))
    began = age(run.get("created_at"), run.get("ended_at") or seen.now)
    if began:
        parts.append(Text(f"{'took' if run.get('ended_at') else 'for'} {began}", "dim"))
    lines = wrapped(parts, width)
    if seen.problem:
        lines.append(Text(clean(" ".join(seen.problem.split())), "yellow"))
    return lines


def grid(states: Sequence[str], width: int, most_rows: int, *, is_unicode: bool = True) -> list[Text]:
    """A cell per rank, in rows with their first rank; where that takes more rows, several ranks in a cell."""
    if not states:
        return [Text("no rank has come yet", "dim")]
    label = len(str(len(states) - 1)) + 1
    columns = _GROUP
    while columns < len(states) and 2 * columns + 2 * columns // _GROUP - 1 <= width - label:
        columns *= 2
    per_cell = 1
    while -(-len(states) // (columns * per_cell)) > most_rows:
        per_cell *= 2
    cells = [_worst(states[at : at + per_cell]) for at in range(0, len(states), per_cell)]
    rows: list[Text] = []
    for at in range(0, len(cells), columns):
        row = Text(f"{at * per_cell:>{label - 1}}", "dim")
        for place, state in enumerate(cells[at : at + columns]):
            row.append(" " if place % _GROUP == 0 else "", "not dim")
            row.append(_cell(state, is_unicode=is_unicode), f"not dim {STATE_STYLES.get(state, '')}".strip())
        rows.append(row)
    if per_cell > 1:
        rows.append(Text(f"a cell is {per_cell} ranks, and shows the worst of them", "dim"))
    return rows


def legend(states: Sequence[str], width: int, *, is_unicode: bool = True) -> list[Text]:
    """What the cells mean, and how many ranks are in each state."""
    counts = Counter(states)
    ordered = sorted(counts, key=lambda state: (_WORST.get(state, len(_WORST)), state))
    parts = [
        Text(f"{_cell(state, is_unicode=is_unicode)} {counts[state]:,} {clean(state)}", STATE_STYLES.get(state, ""))
        for state in ordered
    ]
    return wrapped(parts, width)


def troubled(seen: Seen) -> list[Text]:
    """The ranks that are not well, the worst first, with what is known of their end."""
    ranks = sorted(
        (rank for rank in seen.ranks if rank["state"] in TROUBLED),
        key=lambda rank: (_WORST[str(rank["state"])], rank.get("ended_at") or 0.0, rank["rank"]),
    )
    lines: list[Text] = []
    for rank in ranks[:_MOST_TROUBLED]:
        line = Text(f"rank {rank['rank']} ", "bold").append_text(_state(str(rank["state"])))
        line.append(f" {clean(rank.get('host') or '')}", "not bold")
        if rank.get("last_step") is not None:
            line.append(f", step {rank['last_step']:,}", "not bold")
        why = ending(rank)
        line.append(f": {clean(why)}" if why else "", "not bold")
        lines.append(line)
    more = len(ranks) - len(lines)
    return [*lines, *([Text(f"and {more:,} more", "dim")] if more else [])]


def slowest(seen: Seen) -> list[Text]:
    """The running ranks that are behind the foremost, in one line; none where nobody is by much."""
    steps = {rank["rank"]: rank["last_step"] for rank in seen.ranks if rank.get("last_step") is not None}
    if not steps:
        return []
    front = max(steps.values())
    least = max(2.0, _BEHIND_S * (seen.pace or 0.0))
    behind = sorted(
        (steps[rank["rank"]], rank["rank"])
        for rank in seen.ranks
        if rank["state"] == "running" and rank["rank"] in steps and front - steps[rank["rank"]] >= least
    )
    if not behind:
        return []
    told = [f"rank {rank} by {front - step:,}" for step, rank in behind[:_MOST_SLOW]]
    more = len(behind) - len(told)
    return [Text(f"behind: {', '.join(told)}{f', and {more:,} more' if more else ''} steps")]


def wrapped(parts: Sequence[Text], width: int) -> list[Text]:
    """The parts, two blanks apart, in as few lines as they fit into."""
    lines: list[Text] = []
    for part in parts:
        if lines and lines[-1].cell_len + 2 + part.cell_len <= width:
            lines[-1].append("  ").append_text(part)
        else:
            lines.append(Text().append_text(part))
    return lines


def choose_loss(keys: Sequence[Json]) -> str | None:
    """The metric that is the loss, by its name; None where no name says so."""

    def place(key: str) -> tuple[bool, bool, int]:
        return ("train" not in key and "/" in key, "val" in key or "test" in key, len(key))

    names = [key["key"] for key in keys if key["kind"] == "metric"]
    losses = [name for name in names if name.lower().replace("_", "/").rpartition("/")[2] == "loss"]
    return min(losses, key=lambda name: place(name.lower()), default=None)


def _loss(loss: Loss) -> Text:
    text = Text(f"{clean(loss.key)} {number(loss.mean) or '–'}")
    if loss.low is not None and loss.high is not None and loss.low != loss.high:
        text.append(f" ({number(loss.low)} … {number(loss.high)})", "dim")
    return text


def _console_line(line: Json) -> Text:
    text = Text(f"{clean(origin(line))} ", "dim")
    return text.append_text(Text.from_ansi(shown(str(line["text"]), colours=True).expandtabs(8), style="not dim"))


def _state(state: str) -> Text:
    return Text(clean(state), STATE_STYLES.get(state, ""))


def _cell(state: str, *, is_unicode: bool) -> str:
    return CELLS.get(state, _OTHER)[0 if is_unicode else 1]


def _worst(states: Sequence[str]) -> str:
    return min(states, key=lambda state: _WORST.get(state, _WORST["expected"]))
