"""Who a process is that logs into a run which it never called `init` for."""

from __future__ import annotations

from dataclasses import replace

from allranks.identity import Identity, joining

IMPLIED = Identity(
    run="r",
    launch="1",
    project="p",
    group=None,
    name="n",
    rank=1,
    world_size=4,
    local_rank=1,
    node_rank=0,
    launcher="torchrun",
)
HANDED_OVER = replace(IMPLIED, role="child")
NOBODY = replace(IMPLIED, run="own", launch="own", rank=0, world_size=1, launcher="single")


def test_a_rank_of_the_runs_launch_joins_where_it_stands_now() -> None:
    now = replace(IMPLIED, rank=2)
    assert joining(IMPLIED, now) == now


def test_who_is_no_rank_of_the_run_joins_none() -> None:
    assert joining(IMPLIED, NOBODY) is None
    assert joining(IMPLIED, replace(IMPLIED, run="another")) is None
    assert joining(IMPLIED, replace(IMPLIED, launcher="single")) is None


def test_who_was_handed_the_run_and_has_no_place_of_its_own_works_for_its_maker() -> None:
    assert joining(HANDED_OVER, NOBODY) is HANDED_OVER


def test_who_was_handed_the_run_and_stands_at_its_makers_place_works_for_it() -> None:
    who = replace(IMPLIED, run="another", launch="2")
    assert joining(HANDED_OVER, who) == HANDED_OVER


def test_who_was_handed_the_run_and_has_a_place_of_its_own_is_a_rank_of_it() -> None:
    who = replace(IMPLIED, run="another", launch="2", rank=3)
    assert joining(HANDED_OVER, who) == replace(IMPLIED, rank=3)
