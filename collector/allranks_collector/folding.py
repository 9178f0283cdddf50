"""Folding: what many ranks print alike is one line, with the ranks that printed it. Pure.

Lines are alike that have the same text on the same stream, in one attempt. A rank's own lines are never folded into
each other: its second line of a text belongs to the others' second.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    Line = dict[str, Any]

# How far apart lines of different ranks may have been printed to be the same, in seconds.
WITHIN_S = 10.0


@dataclass(slots=True)
class _Group:
    """Lines that are one. `came` is on the clock of whoever adds lines."""

    line: Line
    like: object
    came: float
    ranks: list[int]


@dataclass(slots=True)
class _Alike:
    """The groups of one text that are still held, oldest first; `gone` were before them.

    `next` is for each rank how many groups, of all that there have been, it can belong to no more.
    """

    groups: list[_Group] = field(default_factory=list[_Group])
    gone: int = 0
    next: dict[int, int] = field(default_factory=dict[int, int])


class Folder:
    """Takes in lines, holds them until they are asked for, and gives each back folded, at the place of the first.

    Args:
        within_s: how far apart, in the time of the lines, those of different ranks may be.
    """

    def __init__(self, within_s: float = WITHIN_S) -> None:
        self._within_s = within_s
        self._held: deque[_Group] = deque()
        self._alike: dict[object, _Alike] = {}

    def __len__(self) -> int:
        """How many folded lines are held."""
        return len(self._held)

    def add(self, line: Line, came: float = 0.0) -> None:
        """Takes in a line, which has come at this moment of any clock that does not go back."""
        like = (line["attempt"], line["stream"], line["open"], line["text"])
        alike = self._alike.get(like)
        if alike is None:
            alike = self._alike[like] = _Alike()
        rank: int = line["rank"]
        place = max(alike.next.get(rank, 0), alike.gone)
        end = alike.gone + len(alike.groups)
        while place < end and not self._is_near(alike.groups[place - alike.gone], line):
            place += 1
        if place == end:
            group = _Group(line, like, came, [rank])
            alike.groups.append(group)
            self._held.append(group)
        else:
            alike.groups[place - alike.gone].ranks.append(rank)
        alike.next[rank] = place + 1

    def pop(self, until: float = float("inf")) -> Iterator[Line]:
        """Those whose first line has come by then, in that order; they are held no more."""
        while self.oldest <= until and self._held:
            yield self.pop_first()

    @property
    def oldest(self) -> float:
        """When the oldest that is held has come; infinity where none is."""
        return self._held[0].came if self._held else float("inf")

    def pop_first(self) -> Line:
        """The oldest that is held.

        Raises:
            IndexError: none is.
        """
        group = self._held.popleft()
        alike = self._alike[group.like]
        del alike.groups[0]
        alike.gone += 1
        if not alike.groups:
            del self._alike[group.like]
        return {**group.line, "ranks": sorted(group.ranks), "count": len(group.ranks)}

    def _is_near(self, group: _Group, line: Line) -> bool:
        return bool(abs(line["time"] - group.line["time"]) <= self._within_s)


def fold(lines: Iterable[Line]) -> list[Line]:
    """Lines in the order of time, folded: each with its `ranks`, ascending, and their `count`."""
    folder = Folder()
    for line in lines:
        folder.add(line)
    return list(folder.pop())


def fold_stream(lines: Iterable[Line], most: int = 20_000) -> Iterator[Line]:
    """As `fold`, of any number of lines: at most so many are held."""
    folder = Folder()
    newest = float("-inf")
    for line in lines:
        # Lines that have not ended come last, and have times from long before.
        newest = max(newest, line["time"])
        folder.add(line, newest)
        while folder.oldest < newest - WITHIN_S or len(folder) > most:
            yield folder.pop_first()
    yield from folder.pop()


def ranks_text(ranks: Sequence[int]) -> str:
    """Ascending ranks in short, as in 0-3,7."""
    parts: list[str] = []
    first = 0
    for at in range(1, len(ranks) + 1):
        if at == len(ranks) or ranks[at] != ranks[at - 1] + 1:
            low, high = ranks[first], ranks[at - 1]
            parts.append(str(low) if low == high else f"{low}-{high}")
            first = at
    return ",".join(parts)


def origin(line: Line) -> str:
    """Whose line it is: `host:rank`, or `×64 [0-63]` where it is folded."""
    if line.get("count", 1) > 1:
        return f"×{line['count']} [{ranks_text(line['ranks'])}]"
    return f"{line['host']}:{line['rank']}"
