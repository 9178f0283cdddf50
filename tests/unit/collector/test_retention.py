"""Which runs are over for long enough to go."""

from __future__ import annotations

import time

import pytest
from tests.support.writers import HandWriter

from allranks_collector.commits import StateNote
from allranks_collector.ingest import Ingest
from allranks_collector.retention import runs_to_remove
from allranks_collector.store import Store

DAY_NS = 86_400 * 1_000_000_000


def ended(ingest: Ingest, number: int, state: str, days_ago: float) -> None:
    """A run of its own, whose one rank has been in this state for so many days."""
    writer = HandWriter(number, run=f"run-{number}", launch=f"launch-{number}")
    ingest.commit([writer.batch([writer.open()])])
    ingest.commit([], notes=[StateNote(number, number, time.time_ns() - int(days_ago * DAY_NS), state, {})])


@pytest.mark.parametrize(
    ("state", "days_ago", "goes"),
    [
        ("finished", 31, True),
        ("failed", 31, True),
        ("dead", 31, True),
        ("unreachable", 31, True),
        ("finished", 29, False),
        ("running", 31, False),
        ("stalled", 31, False),
    ],
)
def test_a_run_goes_when_it_has_been_over_for_long_enough(
    store: Store, state: str, days_ago: float, goes: bool
) -> None:
    ended(Ingest(store), 1, state, days_ago)
    assert runs_to_remove(store, keep_days=30) == ([1] if goes else [])


def test_a_run_of_which_one_rank_lives_stays(store: Store) -> None:
    ingest = Ingest(store)
    ended(ingest, 1, "finished", 40)
    other = HandWriter(2, run="run-1", launch="launch-1", rank=1, world_size=2)
    ingest.commit([other.batch([other.open()])])
    assert runs_to_remove(store, keep_days=30) == []


def test_each_run_is_judged_alone(store: Store) -> None:
    ingest = Ingest(store)
    for number, days in ((1, 50), (2, 10), (3, 31)):
        ended(ingest, number, "finished", days)
    assert runs_to_remove(store, keep_days=30) == [1, 3]
