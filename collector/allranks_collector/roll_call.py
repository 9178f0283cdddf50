"""The roll-call: who of a world has come, who is missing, and on which host a missing rank should be. Pure.

A missing rank has told nobody where it is. Where ranks lie on hosts in blocks of one size, which those that came
show, its host is that of its block; it is named only if every size that fits says the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from allranks_collector.folding import ranks_text


@dataclass(frozen=True)
class Place:
    """Where a rank that has come is."""

    host: str
    local_rank: int | None = None


@dataclass(frozen=True)
class RollCall:
    """Who is there; `missing` has each rank that is not, with its host, or None where that is not sure."""

    world_size: int
    present: int
    missing: Mapping[int, str | None]

    @property
    def text(self) -> str:
        """In one line, as in `62 of 64 present; missing 17, 41 (both on node-3)`."""
        if not self.missing:
            return f"all {self.world_size} present"
        hosts = set(self.missing.values())
        who: dict[str | None, list[int]] = {}
        for rank, host in self.missing.items():
            who.setdefault(host, []).append(rank)
        if len(hosts) == 1:
            (host,) = hosts
            missing = _ranks(self.missing)
            if host is not None:
                missing += f" ({_all(len(self.missing))}on {host})"
        else:
            missing = ", ".join(
                _ranks(ranks) + (f" ({_all(len(ranks))}on {host})" if host is not None else "")
                for host, ranks in who.items()
            )
        return f"{self.present} of {self.world_size} present; missing {missing}"


def call_roll(world_size: int, present: Mapping[int, Place]) -> RollCall:
    """Who of the ranks 0 … world_size - 1 is among `present`."""
    present = {rank: place for rank, place in present.items() if 0 <= rank < world_size}
    missing = [rank for rank in range(world_size) if rank not in present]
    if not missing:
        return RollCall(world_size, len(present), {})
    fitting = [
        (size, hosts)
        for size in range(1, world_size + 1)
        if world_size % size == 0 and (hosts := _hosts(size, present)) is not None
    ]
    named: dict[int, str | None] = {}
    for rank in missing:
        said = {hosts.get(rank // size) for size, hosts in fitting}
        named[rank] = said.pop() if len(said) == 1 else None
    return RollCall(world_size, len(present), named)


def _hosts(size: int, present: Mapping[int, Place]) -> dict[int, str] | None:
    """The host of each block of `size` ranks; None where those that came do not lie so."""
    hosts: dict[int, str] = {}
    for rank, place in present.items():
        if place.local_rank not in (None, rank % size) or hosts.setdefault(rank // size, place.host) != place.host:
            return None
    return hosts if len(set(hosts.values())) == len(hosts) else None


def _ranks(ranks: Iterable[int]) -> str:
    return ranks_text(sorted(ranks)).replace(",", ", ")


def _all(count: int) -> str:
    return {1: "", 2: "both "}.get(count, "all ")
