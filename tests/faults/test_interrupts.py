"""Ctrl-C and SIGTERM in the middle of a training: all that log() returned for is stored, and nothing is swallowed."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
from tests.support.collector import CollectorProcess
from tests.support.stored import assert_all_stored, stored_in
from tests.support.training import RUN, Job
from tests.support.waiting import wait_until

_INTERRUPTS = 100
_MOST_STEPS = 2_000_000


@pytest.mark.parametrize(
    ("number", "fate"),
    [(signal.SIGINT, ("failed", "KeyboardInterrupt")), (signal.SIGTERM, ("dead", "killed by SIGTERM"))],
)
def test_a_signal_ends_the_training_as_it_would_without_us(
    collector: CollectorProcess, number: signal.Signals, fate: tuple[str, str]
) -> None:
    with Job(collector.home, collector.url).ranks(1, "finish") as ranks:
        ranks[0].reach(20_000)
        wait_until(lambda: collector.ranks(RUN), "the rank is known")
        ranks[0].process.send_signal(number)
        # Asked for its status only then: an older kernel tells nobody else of it afterwards.
        wait_until(lambda: collector.ranks(RUN)[0]["state"] == fate[0], f"the rank is {fate[0]}")
        assert ranks[0].wait() == -number
        assert collector.ranks(RUN)[0]["reason"] == fate[1]
        collector.await_drained()
        collector.stop()
        assert_all_stored(collector.database, RUN, ranks)


def test_interrupts_that_the_training_survives_cost_no_event(collector: CollectorProcess, tmp_path: Path) -> None:
    returned_path = tmp_path / "returned"
    returned_path.write_bytes(bytes(_MOST_STEPS))
    with Job(collector.home, collector.url, program="interrupted").ranks(1, str(returned_path)) as ranks:
        (rank,) = ranks
        for nth in range(1, _INTERRUPTS + 1):
            rank.reach(rank.returned + 100)
            rank.process.send_signal(signal.SIGINT)
            wait_until(lambda: rank.progress.phase == nth, "the interrupt has come")  # noqa: B023
        rank.stop()
        collector.await_drained()
        collector.stop()
    returned = np.flatnonzero(np.frombuffer(returned_path.read_bytes(), np.uint8))
    with stored_in(collector.database) as stored:
        (counter,) = stored.counters(RUN)
        assert stored.events("broken") == 0
    assert np.array_equal(counter.steps, counter.values)
    assert bool((np.diff(counter.steps) > 0).all())
    assert np.isin(returned, counter.steps).all()
    # An interrupt comes in the middle of at most one call.
    assert len(counter.steps) - len(returned) <= _INTERRUPTS
