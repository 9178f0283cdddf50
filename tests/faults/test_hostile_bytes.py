"""Hostile and broken bytes on every port, beside a healthy rank: that one loses nothing, and the collector lives."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.faults.attacks import ATTACKS, Attacker
from tests.support.collector import CollectorProcess
from tests.support.processes import resident_bytes
from tests.support.stored import assert_all_stored, stored_in
from tests.support.training import RUN, Job
from tests.support.waiting import wait_until

from allranks_bus.spool_directory import find_spools

MIB = 1024 * 1024
_GROWTH_BYTES = 400 * MIB
_LOG_BYTES = 100_000
_KEPT = r"partial(/[0-9a-f]{32}\.[0-9a-f]{8})?|blobs(/[0-9a-f]{2}(/[0-9a-f]{64})?)?"


def test_a_healthy_rank_loses_nothing_whatever_else_is_sent(
    collector_of: Callable[[dict[str, str]], CollectorProcess], measured: Callable[[str, object], None]
) -> None:
    with (
        collector_of({"ALLRANKS_MEMORY_LIMIT_MB": "256"}) as collector,
        Job(collector.home, collector.url).ranks(1, "finish") as ranks,
    ):
        (rank,) = ranks
        rank.reach(20_000)
        wait_until(lambda: collector.ranks(RUN), "the rank is known")
        before = most = resident_bytes(collector.pid)
        (spool,) = find_spools(collector.home / "spool")
        attacker = Attacker(collector.address, collector.http, bytes.fromhex(spool.name))
        for attack in ATTACKS:
            attack(attacker)
            # It has come through all of it: what the healthy rank logs now is stored.
            at = rank.returned
            wait_until(
                lambda: collector.ranks(RUN)[0]["last_step"] >= at,  # noqa: B023
                f"the rank's events come in after {attack.__name__}",
            )
            assert collector.is_running, attack.__name__
            most = max(most, resident_bytes(collector.pid))
        attacker.close()
        rank.stop()
        collector.await_drained()
        status = collector.get("/api/collector")
        assert collector.ready()[0] == 200
        assert collector.stop() == 0
        log = collector.log.read_text()
        measured("memory_mib", (before // MIB, most // MIB))
        measured("log_bytes", len(log))
        measured("rejected", status["rejected"])
        assert status["rejected"] > 1000
        assert most - before < _GROWTH_BYTES
        assert len(log) < _LOG_BYTES
        assert "Traceback" not in log  # each of them was foreseen
        assert_all_stored(collector.database, RUN, ranks)
        with stored_in(collector.database) as stored:
            assert stored.one("SELECT count(*) FROM runs WHERE id = 'hostile'") == 1
        # Nothing from the wire has become a path.
        kept = [str(path.relative_to(collector.home / "files")) for path in (collector.home / "files").rglob("*")]
        assert [name for name in kept if not re.fullmatch(_KEPT, name)] == []
