"""torch.multiprocessing.spawn: four ranks with gloo, and no `finish()`, as spawned processes run no atexit."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support import scenario
from tests.support.stored import Stored
from tests.support.waiting import wait_until

from allranks_bus.home import read_endpoint

_RANKS, _STEPS = 4, 500


def _must_be_one_run(stored: Stored, run: str, ranks: range, *, group: str | None) -> None:
    writers = stored.writers(run)
    assert [(writer.rank, writer.world_size, writer.role) for writer in writers] == [
        (rank, _RANKS, "rank") for rank in ranks
    ]
    assert [writer.state for writer in writers] == ["finished"] * len(ranks)
    assert len({writer.pid for writer in writers}) == len(ranks)
    assert [len(counter.steps) for counter in stored.counters(run)] == [_STEPS] * len(ranks)
    assert all(counter.is_unbroken for counter in stored.counters(run))
    assert stored.rows("SELECT project, group_name FROM runs WHERE id = ?", run) == [("aaa", group)]


@pytest.mark.parametrize(
    ("who", "ranks", "group", "has_collector"),
    [
        ("first", range(1), None, False),
        ("joined", range(_RANKS), None, True),
        ("all", range(_RANKS), "DDP", False),
    ],
)
def test_the_program_ends_and_all_that_was_logged_is_stored_in_one_run(
    home: Path, who: str, ranks: range, group: str | None, has_collector: bool
) -> None:
    if has_collector:
        scenario.run(home, "plain.py").must_be_well()
        wait_until(lambda: read_endpoint(home), "a collector listens", timeout_s=60)
    ended = scenario.run(home, "spawned_ranks.py", who)
    ended.must_be_well()
    with scenario.stored(home) as stored:
        run = stored.one("SELECT id FROM runs WHERE project = 'aaa'")
        _must_be_one_run(stored, run, ranks, group=group)
    assert scenario.collector_log(home).count("listens: data") == 1
