"""The roll-call: who is missing is named, and the host of a missing rank only where it is sure."""

from __future__ import annotations

import pytest

from allranks_collector.roll_call import Place, call_roll


def nodes(size: int, world: int, missing: set[int], *, tells_local: bool = True) -> dict[int, Place]:
    return {
        rank: Place(f"node-{rank // size}", rank % size if tells_local else None)
        for rank in range(world)
        if rank not in missing
    }


@pytest.mark.parametrize(
    ("present", "world", "text"),
    [
        (nodes(8, 64, {25, 30}), 64, "62 of 64 present; missing 25, 30 (both on node-3)"),
        (nodes(8, 64, {17, 41}), 64, "62 of 64 present; missing 17 (on node-2), 41 (on node-5)"),
        (nodes(8, 64, {1, 2, 3}, tells_local=False), 64, "61 of 64 present; missing 1-3 (all on node-0)"),
        (nodes(8, 64, set(range(8, 16))), 64, "56 of 64 present; missing 8-15"),
        (nodes(4, 8, {7, *range(4)}), 8, "3 of 8 present; missing 0-3, 7 (on node-1)"),
        (nodes(4, 4, set()), 4, "all 4 present"),
        ({}, 2, "0 of 2 present; missing 0-1"),
        # One rank on a host: the next may be on it too, or not.
        ({0: Place("a", 0)}, 2, "1 of 2 present; missing 1"),
        # Ranks that lie anyhow.
        ({0: Place("a", 0), 1: Place("b", 0), 3: Place("a", 1)}, 4, "3 of 4 present; missing 2"),
        # A rank beyond the world is no member of it.
        ({0: Place("a", 0), 9: Place("b", 0)}, 2, "1 of 2 present; missing 1"),
    ],
)
def test_who_is_missing(present: dict[int, Place], world: int, text: str) -> None:
    assert call_roll(world, present).text == text
