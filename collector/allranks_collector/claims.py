"""Claims that do not fit together: two processes at one rank, ranks that count their world differently. Pure.

Each is said once, as an event of the run, and changes nothing: what each process sends is stored as its own.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from allranks_collector.folding import ranks_text

# The kinds of the events, and of what they are about.
TWICE, WORLD, SHRUNK, REFUSED = "rank-claimed-twice", "world-disagrees", "world-changed", "refused"
KINDS = (TWICE, WORLD, SHRUNK, REFUSED)
# Who takes a place is alone in it after so long, if the one before is on its way out: of the same attempt, or of one
# before, which a launcher may give half a minute to end.
SAME_S, OTHER_S = 3.0, 45.0
_MOST_NAMED, _MOST_EVENTS = 4, 4


@dataclass(frozen=True)
class Claim:
    """A writer that says which rank it is.

    Attributes:
        process: the same for all writers of one process.
        since_ns: when it came, in the collector's clock.
        own: its pid and start.
        wrapper: those of the process that wraps it (`allranks run`), which is the same rank by right.
        world_size: 1 for one that is alone: it may be the program that has started the ranks.
    """

    writer: int
    run: int
    rank: int
    launch: str
    host: str
    pid: int
    process: Hashable
    since_ns: int
    own: tuple[int, int] = (0, 0)
    wrapper: tuple[int, int] | None = None
    world_size: int = 1

    def is_at_odds_with(self, other: Claim) -> bool:
        """True unless both are one process, or one runs the other, or they are in worlds of which one is no world."""
        is_wrapped = self.host == other.host and (self.wrapper == other.own or other.wrapper == self.own)
        return self.process != other.process and not is_wrapped and (self.world_size > 1) == (other.world_size > 1)


@dataclass
class _Place:
    claims: list[Claim] = field(default_factory=list[Claim])
    told: set[int] = field(default_factory=set[int])


class Places:
    """Who claims which rank of which run, of those that live."""

    def __init__(self, same_s: float = SAME_S, other_s: float = OTHER_S) -> None:
        self._same_ns, self._other_ns = round(same_s * 1e9), round(other_s * 1e9)
        self._places: dict[tuple[int, int], _Place] = {}
        self._crowded: set[tuple[int, int]] = set()

    def come(self, claim: Claim, *, is_told: bool = False) -> None:
        """Takes in a writer; `is_told` where it has been said before that it is not alone."""
        key = claim.run, claim.rank
        place = self._places.setdefault(key, _Place())
        place.claims.append(claim)
        if is_told:
            place.told.add(claim.writer)
        if len(place.claims) > 1:
            self._crowded.add(key)

    def leave(self, run: int, rank: int, writer: int) -> None:
        """Takes in that a writer is watched no longer."""
        place = self._places.get((run, rank))
        if place is None:
            return
        place.claims = [claim for claim in place.claims if claim.writer != writer]
        if len(place.claims) < 2:
            self._crowded.discard((run, rank))
        if not place.claims:
            del self._places[run, rank]

    def look(self, heard_ns: Callable[[int], int | None]) -> Iterator[list[Claim]]:
        """The claims to one rank that prove to live side by side, the older first; each company is given once.

        Args:
            heard_ns: when a writer was last heard; None where it does not live.
        """
        for key in self._crowded:
            place = self._places[key]
            alive = [(claim, heard) for claim in place.claims if (heard := heard_ns(claim.writer)) is not None]
            for at in range(1, len(alive)):
                newer, newer_heard = alive[at]
                together = [
                    claim for claim, heard in alive[:at] if self._are_together(claim, heard, newer, newer_heard)
                ]
                if together and newer.writer not in place.told:
                    place.told.update(claim.writer for claim in (*together, newer))
                    yield [*together, newer]

    def _are_together(self, older: Claim, older_heard: int, newer: Claim, newer_heard: int) -> bool:
        wait_ns = self._same_ns if older.launch == newer.launch else self._other_ns
        return older.is_at_odds_with(newer) and min(older_heard, newer_heard) >= newer.since_ns + wait_ns


def claimed_twice(companies: Iterable[Sequence[Claim]]) -> Iterator[tuple[Claim, dict[str, Any]]]:
    """The events of companies that were found at once, each with the claim that it is about.

    Where many ranks of a run are claimed twice, somebody has started it twice: one event tells them all. Who came
    first in an attempt keeps the place, the others are its `rivals`.
    """
    by_run: dict[int, list[Sequence[Claim]]] = {}
    for claims in companies:
        by_run.setdefault(claims[0].run, []).append(claims)
    for found in by_run.values():
        for group in [found] if len(found) > _MOST_EVENTS else [[claims] for claims in found]:
            yield group[0][-1], _claimed(group)


def _claimed(group: Sequence[Sequence[Claim]]) -> dict[str, Any]:
    first = group[0]
    newest = first[-1]
    named = [f"pid {claim.pid} on {claim.host}" for claim in first[:_MOST_NAMED]]
    more = [f"and {len(first) - _MOST_NAMED} more"] if len(first) > _MOST_NAMED else []
    of = ", of different attempts" if len({claim.launch for claim in first}) > 1 else ""
    who = f"{len(first)} processes at once{of}: {', '.join([*named, *more])}"
    text = f"rank {newest.rank} is claimed by {who}"
    if len(group) > 1:
        text = (
            f"{len(group)} ranks are claimed by several processes each ({_ranks(group)}): rank {newest.rank} by {who}"
        )
    return {
        "rank": newest.rank,
        "text": text,
        "claims": [
            {"writer": claim.writer, "host": claim.host, "pid": claim.pid} for claims in group for claim in claims
        ],
        "rivals": [
            claim.writer
            for claims in group
            for at, claim in enumerate(claims)
            if any(other.launch == claim.launch and claim.is_at_odds_with(other) for other in claims[:at])
        ],
    }


def _ranks(group: Iterable[Sequence[Claim]]) -> str:
    return ranks_text(sorted(claims[0].rank for claims in group))


def world_told(
    worlds: Mapping[str, Iterable[int]], attempts: Mapping[str, int], launch: str, rank: int, size: int
) -> tuple[str, dict[str, Any]] | None:
    """What is odd about the size that a rank gives its world: the kind and body of an event; None where nothing is.

    Who is alone says nothing of a world: it may be the program that starts the ranks of one.

    Args:
        worlds: by launch, the sizes that its ranks have given before.
        attempts: by launch, its number.
    """
    known, attempt = sorted(set(worlds.get(launch, ())) - {1}), attempts[launch]
    if size in known or size == 1:
        return None
    if known:
        others = " and ".join(map(str, known))
        text = f"ranks do not agree on the world's size: rank {rank} says {size}, others say {others}"
        return WORLD, {"rank": rank, "world_size": size, "others": known, "text": text}
    earlier = [other for other in worlds if attempts.get(other, attempt) < attempt]
    before = max(earlier, key=attempts.__getitem__, default=None)
    sizes = [] if before is None else sorted(set(worlds[before]) - {1})
    if before is None or not sizes or size in sizes:
        return None
    had = " or ".join(map(str, sizes))
    text = f"attempt {attempt} has a world of {size}, attempt {attempts[before]} had one of {had}"
    return SHRUNK, {"world_size": size, "before": max(sizes), "text": text}
