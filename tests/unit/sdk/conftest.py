"""A fresh SDK for each test: no current run, no memory of warnings, an environment that knows no launcher."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from allranks import _current, _warnings
from allranks.launchers import PLACE_NAMES


@pytest.fixture
def sdk_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The ALLRANKS_HOME of a process that has called nothing yet; whatever run the test leaves is ended."""
    for name in [name for name in os.environ if name.startswith("ALLRANKS_") or name in PLACE_NAMES]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ALLRANKS_HOME", str(tmp_path))
    # The process that runs the tests prints for all of them.
    monkeypatch.setenv("ALLRANKS_CONSOLE", "off")
    monkeypatch.setattr(_current, "_current", None)
    monkeypatch.setattr(_current, "_runs", [])
    monkeypatch.setattr(_current, "_turn", 0)
    _warnings.forget()
    yield tmp_path
    run = _current.current()
    if run is not None and not run.is_finished:
        run.finish(timeout=0)
    monkeypatch.delenv("ALLRANKS_PARENT_RUN", raising=False)
