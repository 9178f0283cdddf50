"""Disks without room, on either side: training goes on, what cannot be kept is counted, what was kept is stored."""

from __future__ import annotations

import time

import numpy as np
import pytest
from tests.support import small_disk
from tests.support.collector import CollectorProcess
from tests.support.draining import drain_all
from tests.support.stored import Stored, assert_all_stored, stored_in
from tests.support.training import RUN, Job, Rank
from tests.support.waiting import wait_until


def _job(collector: CollectorProcess, disk: small_disk.SmallDisk) -> Job:
    env = {"ALLRANKS_SPOOL": str(disk.spool)} if disk.spool else {}
    return Job(collector.home, collector.url, env=env, wrapper=disk.wrapper)


def _is_keeping(rank: Rank) -> bool:
    """True where none of the next events is dropped."""
    rank.reach(rank.returned + 2000)
    dropped = rank.progress.dropped
    rank.reach(rank.returned + 5000)
    return rank.progress.dropped == dropped


def _assert_counts_agree(stored: Stored, rank: Rank) -> None:
    """What is stored and what was dropped are together what was logged, and the collector knows both."""
    (counter,) = stored.counters(RUN)
    assert np.array_equal(counter.steps, counter.values)
    assert bool((np.diff(counter.steps) > 0).all())
    # The rank's own: of what it printed something may have been lost too.
    dropped = stored.one("SELECT sum(dropped) FROM positions JOIN writers USING (writer) WHERE role = 'rank'")
    assert dropped == rank.progress.dropped > 0
    assert len(counter.steps) + dropped == rank.returned
    # Before the disk was full, and again after there was room.
    assert counter.steps[0] == 0
    assert counter.steps[-1] == rank.returned - 1


@pytest.mark.parametrize("kind", small_disk.kinds())
def test_a_full_spool_disk_costs_counted_drops_until_there_is_room(collector: CollectorProcess, kind: str) -> None:
    disk = small_disk.small_disk(kind)
    with _job(collector, disk).ranks(1, "finish") as ranks:
        (rank,) = ranks
        rank.reach(20_000)
        disk.fill(rank.process.pid)
        filled_at = time.monotonic()
        wait_until(lambda: "events are dropped" in rank.stderr, "the rank warns")
        rank.reach(rank.returned + 50_000)
        disk.make_room(rank.process.pid)
        full_s = time.monotonic() - filled_at
        wait_until(lambda: _is_keeping(rank), "events are kept again")
        rank.stop()
        assert rank.stderr.count("\n") == 1
        assert rank.progress.slowest_s <= max(1.0, full_s / 2)
        wait_until(lambda: collector.ranks(RUN)[0]["state"] == "finished", "the rank is finished")
        collector.stop()
        with stored_in(collector.database) as stored:
            _assert_counts_agree(stored, rank)


def test_a_full_disk_is_told_and_counted_where_nothing_is_sent_yet(collector: CollectorProcess) -> None:
    disk = small_disk.small_disk("limit")
    with Job(collector.home, env={"ALLRANKS_MODE": "offline"}).ranks(1, "finish") as ranks:
        (rank,) = ranks
        rank.reach(20_000)
        disk.fill(rank.process.pid)
        rank.reach(rank.returned + 50_000)
        disk.make_room(rank.process.pid)
        wait_until(lambda: _is_keeping(rank), "events are kept again")
        rank.stop()
        full, where = rank.stderr.splitlines()
        assert "events are dropped" in full
        assert "allranks sync" in where
        drained = drain_all(collector.home / "spool", collector.address)
        assert {spool.is_done for spool in drained} == {True}
        collector.stop()
        with stored_in(collector.database) as stored:
            _assert_counts_agree(stored, rank)


@pytest.mark.parametrize("kind", ["file in the way", *(["disk"] if "disk" in small_disk.kinds() else [])])
def test_a_spool_that_cannot_be_written_is_said_once_and_training_goes_on(
    collector: CollectorProcess, kind: str
) -> None:
    if kind == "disk":
        wrapper, spool = small_disk.read_only_disk()
    else:
        (collector.home / "file").write_text("")
        wrapper, spool = (), collector.home / "file" / "spool"
    job = Job(collector.home, collector.url, env={"ALLRANKS_SPOOL": str(spool)}, wrapper=wrapper)
    with job.ranks(1, "finish", "50000") as ranks:
        assert ranks[0].wait() == 0
        (line,) = ranks[0].stderr.splitlines()
        assert "nothing can be kept" in line
        assert "ALLRANKS_SPOOL" in line


def test_a_spool_that_cannot_be_made_in_the_home_is_made_elsewhere(collector: CollectorProcess) -> None:
    home = collector.home.parent / "broken"
    home.write_text("a file where a folder should be")
    with Job(home, collector.url, env={"ALLRANKS_SPOOL": ""}).ranks(1, "finish", "5000") as ranks:
        assert ranks[0].wait() == 0
        collector.stop()
        assert_all_stored(collector.database, RUN, ranks)


def test_a_collector_without_room_acks_nothing_says_so_and_loses_nothing(collector: CollectorProcess) -> None:
    disk = small_disk.small_disk("limit")
    with Job(collector.home, collector.url).ranks(2, "finish") as ranks:
        for rank in ranks:
            rank.reach(10_000)
        disk.fill(collector.pid)
        status, text = wait_until(lambda: _unready(collector), "it says that it is not ready")
        assert status == 503
        assert "no space left" in text
        stored = collector.get("/api/collector")["events"]
        for rank in ranks:
            rank.reach(rank.returned + 50_000)
        assert collector.get("/api/collector")["events"] == stored
        disk.make_room(collector.pid)
        wait_until(lambda: collector.ready()[0] == 200, "it is ready again")
        for rank in ranks:
            rank.progress.ask_to_stop()
        for rank in ranks:
            assert rank.wait() == 0
        collector.await_drained()
        collector.stop()
        assert_all_stored(collector.database, RUN, ranks)


def _unready(collector: CollectorProcess) -> tuple[int, str] | None:
    status, text = collector.ready()
    return (status, text) if status != 200 else None
