"""Finding the collector that something is meant for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from allranks_bus import collector_finder, processes
from allranks_bus.addresses import Address
from allranks_bus.collector_finder import CollectorFinder, Unreachable
from allranks_bus.errors import AddressError
from allranks_bus.home import Endpoint, write_endpoint


def _never() -> bool:
    return False


def _endpoint(pid: int) -> Endpoint:
    return Endpoint("tcp://127.0.0.1:5571", "http://h", pid, processes.start_time(pid) or 0, "a" * 32, "1", 0.0)


def test_a_url_is_its_address() -> None:
    assert CollectorFinder("tcp://h:5571").find(_never) == Address("tcp", host="h", port=5571)
    with pytest.raises(AddressError):
        CollectorFinder("nonsense").find(_never)


def test_offline_leads_nowhere() -> None:
    with pytest.raises(Unreachable):
        CollectorFinder("offline").find(_never)


def test_the_embedded_one_is_found_where_it_runs(tmp_path: Path) -> None:
    write_endpoint(tmp_path, _endpoint(os.getpid()))
    finder = CollectorFinder(f"embedded:{tmp_path}")
    assert finder.find(_never) == Address("tcp", host="127.0.0.1", port=5571)
    assert not finder.has_died(100.0)


def test_the_embedded_one_is_started_where_it_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its own home, whatever the environment says."""
    homes: list[str] = []

    def start(env: dict[str, str], *, should_stop: object) -> Endpoint:
        homes.append(env["ALLRANKS_HOME"])
        return _endpoint(os.getpid())

    monkeypatch.setattr(collector_finder, "ensure_collector", start)
    assert CollectorFinder(f"embedded:{tmp_path}").find(_never) is not None
    assert homes == [str(tmp_path)]


def test_the_end_of_the_embedded_one_is_noticed(tmp_path: Path) -> None:
    """At a look twice a second, and not at every question."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        write_endpoint(tmp_path, _endpoint(process.pid))
        finder = CollectorFinder(f"embedded:{tmp_path}")
        finder.find(_never)
        assert not finder.has_died(100.0)
        process.kill()
        process.wait()
        assert not finder.has_died(100.1)
        assert finder.has_died(100.6)


def test_nothing_is_known_of_the_end_of_others() -> None:
    finder = CollectorFinder("tcp://h:5571")
    finder.find(_never)
    assert not finder.has_died(100.0)
