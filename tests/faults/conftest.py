"""What all fault tests share: a home of their own, and the certainty that no process outlives a test."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support import processes
from tests.support.collector import CollectorProcess
from tests.support.waiting import wait_until


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home that no process has at the end."""
    home = tmp_path / "home"
    yield home
    left = processes.left_with_home(home)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not processes.with_home(home), "all processes of the test are gone")
    assert not left, f"processes were left behind: {left}"


@pytest.fixture
def collector(home: Path) -> Iterator[CollectorProcess]:
    """A collector that listens."""
    with CollectorProcess(home) as collector:
        yield collector


@pytest.fixture
def collector_of(home: Path) -> Callable[[dict[str, str]], CollectorProcess]:
    """Makes a collector with settings, to be entered."""
    return lambda settings: CollectorProcess(home, settings)


@pytest.fixture
def measured() -> Callable[[str, object], None]:
    """Tells a figure to whoever runs the tests with -rP."""
    return lambda name, figure: print(f"measured {name}: {figure}")
