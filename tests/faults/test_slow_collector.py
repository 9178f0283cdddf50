"""A collector slower than its ranks: the spools grow, and neither its memory nor the time of log() does."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from tests.support.collector import CollectorProcess
from tests.support.processes import resident_bytes
from tests.support.stored import assert_all_stored, stored_in
from tests.support.training import RUN, Job, Rank
from tests.support.waiting import wait_until

MIB = 1024 * 1024
_EVENTS, _PART = 200_000, 10_000
# What Python and its libraries take, DuckDB's memory, what is pending, and one commit's arrays.
_MEMORY_BYTES = 700 * MIB
_SETTINGS = {"ALLRANKS_MEMORY_LIMIT_MB": "256", "ALLRANKS_HEARTBEAT_TIMEOUT_S": "2"}


def _spool_bytes(collector: CollectorProcess) -> int:
    return sum(path.stat().st_size for path in (collector.home / "spool").glob("*/*.seg"))


def _rate(rank: Rank, events: int) -> float:
    """Its events a second, in the best of many parts: whatever else the machine does comes and goes."""
    best = 0.0
    for _ in range(0, events, _PART):
        begun_at, returned = time.monotonic(), rank.returned
        rank.reach(returned + _PART)
        best = max(best, (rank.returned - returned) / (time.monotonic() - begun_at))
    return best


def test_a_collector_that_stands_still_for_a_while_costs_only_spool(
    collector_of: Callable[[dict[str, str]], CollectorProcess], measured: Callable[[str, object], None]
) -> None:
    with collector_of(_SETTINGS) as collector, Job(collector.home, collector.url).ranks(2, "finish") as ranks:
        wait_until(lambda: len(collector.ranks(RUN)) == 2, "both ranks are known")
        before = _rate(ranks[0], 50_000)
        collector.send(signal.SIGSTOP)
        stopped_at = time.monotonic()
        meanwhile = _rate(ranks[0], _EVENTS)
        ranks[1].reach(_EVENTS)
        # Longer than a rank may be silent: it is the collector that was not there to hear.
        wait_until(lambda: time.monotonic() - stopped_at > 3.0, "the collector has been away for long")
        wait_until(lambda: _spool_bytes(collector) > 2 * 17 * MIB, "the spools have grown", timeout_s=60)
        collector.send(signal.SIGCONT)
        stopped_s = time.monotonic() - stopped_at
        most = 0

        def has_shrunk() -> bool:
            nonlocal most
            most = max(most, resident_bytes(collector.pid))
            return _spool_bytes(collector) < 2 * 17 * MIB

        for rank in ranks:
            rank.progress.ask_to_stop()
        wait_until(has_shrunk, "the spools have shrunk", timeout_s=60)
        for rank in ranks:
            assert rank.wait() == 0
        collector.await_drained()
        most = max(most, resident_bytes(collector.pid))
        collector.stop()
        measured("rates", (before, meanwhile))
        measured("memory_mib", most // MIB)
        assert most < _MEMORY_BYTES
        assert meanwhile > before / 3
        assert max(rank.progress.slowest_s for rank in ranks) <= max(1.0, stopped_s / 2)
        assert_all_stored(collector.database, RUN, ranks)
        with stored_in(collector.database) as stored:
            assert [stored.states(RUN, rank) for rank in (0, 1)] == [["running", "finished"]] * 2


def test_a_collector_that_may_hold_little_takes_no_more_than_that(
    collector_of: Callable[[dict[str, str]], CollectorProcess],
) -> None:
    with (
        collector_of({**_SETTINGS, "ALLRANKS_MAX_PENDING_MB": "1"}) as collector,
        Job(collector.home, collector.url).ranks(2, "finish", str(_EVENTS)) as ranks,
    ):
        most = 0

        def has_all() -> bool:
            nonlocal most
            most = max(most, collector.get("/api/collector")["pending_bytes"])
            return all(rank.process.poll() is not None for rank in ranks)

        wait_until(has_all, "both ranks have ended", timeout_s=60)
        collector.await_drained()
        collector.stop()
        # The bound, and what one look at the socket may bring.
        assert most <= 1 * MIB + 5 * MIB
        assert_all_stored(collector.database, RUN, ranks)
