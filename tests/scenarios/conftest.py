"""What all scenarios share: a home of their own, and the certainty that no process outlives a test."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import processes, scenario
from tests.support.waiting import wait_until


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home that nobody has used yet, and that no process has at the end."""
    home = tmp_path / "home"
    yield home
    scenario.end_collector(home)
    left = processes.left_with_home(home)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not processes.with_home(home), "all processes of the test are gone")
    assert not left, f"processes were left behind: {left}"
