"""Files arrive byte for byte, whichever process dies when, and nothing is left behind."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path

import pytest
from tests.faults.programs.saving import LEFT
from tests.support.collector import CollectorProcess
from tests.support.outboxes import shippers_of
from tests.support.progress import PHASE
from tests.support.training import RUN, Job, Rank
from tests.support.waiting import wait_until

from allranks_bus.home import run_dir

_ARRIVES_S = 60.0
_NAMES = {"checkpoints/epoch=1.ckpt", "checkpoints/last.ckpt", "empty", "größe 大.txt", "notes.txt"}


def _job(collector: CollectorProcess) -> Job:
    return Job(collector.home, collector.url, program="saving")


def _digests(home: Path) -> dict[str, str]:
    """What is to arrive, by its digest."""
    folder = run_dir(RUN, {"ALLRANKS_HOME": str(home)})
    found = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }
    return {**found, "notes.txt": hashlib.sha256(b"saved").hexdigest()}


def _stored(collector: CollectorProcess) -> dict[str, str]:
    """What has arrived."""
    if RUN not in {run["id"] for run in collector.get("/api/runs")["runs"]}:
        return {}
    return {file["name"]: file["digest"] for file in collector.get(f"/api/runs/{RUN}/files")["files"]}


def _await_all(collector: CollectorProcess) -> None:
    wanted = _digests(collector.home)
    assert set(wanted) == _NAMES
    wait_until(lambda: _stored(collector) == wanted, "all files have arrived", timeout_s=_ARRIVES_S)
    for digest in wanted.values():
        blob = collector.home / "files" / "blobs" / digest[:2] / digest
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == digest


def _outbox(collector: CollectorProcess) -> Path:
    return wait_until(lambda: next((collector.home / "spool").glob("outbox-*"), None), "there is an outbox")


def _await_left(rank: Rank) -> None:
    wait_until(lambda: rank.progress.cells[PHASE] >= LEFT, "it has left its files", timeout_s=_ARRIVES_S)


def _await_partly(collector: CollectorProcess) -> None:
    """Until something of a large file has come."""
    partial = collector.home / "files" / "partial"

    def has_begun() -> bool:
        return any(path.stat().st_size > 8 * 1024 * 1024 for path in partial.glob("*"))

    wait_until(has_begun, "a large file is on its way", timeout_s=_ARRIVES_S)


@pytest.mark.parametrize("ending", ["finish", "return", "raise", "_exit-3", "kill"])
def test_files_arrive_however_their_rank_ends(collector: CollectorProcess, ending: str) -> None:
    with _job(collector).ranks(1, ending, "20") as ranks:
        ranks[0].wait()
        _await_all(collector)
    collector.await_drained()


def test_files_are_stored_when_finish_returns(collector: CollectorProcess) -> None:
    with _job(collector).ranks(1, "wait", "3") as ranks:
        _await_left(ranks[0])
        ranks[0].stop()
        assert _stored(collector) == _digests(collector.home)


def test_a_shipper_that_is_killed_in_mid_file_costs_nothing(collector: CollectorProcess) -> None:
    with _job(collector).ranks(1, "wait", "120") as ranks:
        _await_left(ranks[0])
        _await_partly(collector)
        for pid in shippers_of(_outbox(collector)):
            os.kill(pid, signal.SIGKILL)
        ranks[0].progress.ask_to_stop()
        _await_all(collector)
        assert ranks[0].wait() == 0
    collector.await_drained()


def test_a_collector_that_is_killed_in_mid_file_costs_nothing(collector: CollectorProcess) -> None:
    with _job(collector).ranks(1, "wait", "120") as ranks:
        _await_left(ranks[0])
        _await_partly(collector)
        collector.kill()
        collector.start()
        ranks[0].progress.ask_to_stop()
        _await_all(collector)
        assert ranks[0].wait() == 0
    collector.await_drained()


def test_files_for_which_there_was_no_collector_come_in_with_the_next_one(home: Path) -> None:
    collector = CollectorProcess(home)
    with _job(collector).ranks(1, "finish", "3") as ranks:
        assert ranks[0].wait() == 0
        assert "some files are not stored yet" in ranks[0].stderr
    outbox = _outbox(collector)
    wait_until(lambda: not shippers_of(outbox), "the shipper has given up", timeout_s=_ARRIVES_S)
    with collector:
        _await_all(collector)
        collector.await_drained()
