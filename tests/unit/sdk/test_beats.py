"""What a beat tells beside that the rank lives; asking for it never raises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import allranks
from allranks import _part
from allranks._publisher import Publisher
from allranks_bus import cgroups


@pytest.fixture
def beat(sdk_home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, Any]]:
    """Gives the map of the next beat of a run that has begun."""
    given: list[Callable[[], dict[str, Any]]] = []

    class Overheard(Publisher):
        def __init__(self, log: Any, writer: bytes, beat: Any, *rest: Any, **more: Any) -> None:
            given.append(beat)
            super().__init__(log, writer, beat, *rest, **more)

    monkeypatch.setattr(_part, "Publisher", Overheard)
    allranks.init(project="p", mode="offline")
    return given[0]


def test_a_beat_tells_of_kills_for_want_of_memory_in_its_group(
    beat: Callable[[], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "memory.events"
    path.write_text("oom_kill 2\n")
    asked: list[int] = []

    def find(pid: int) -> str:
        asked.append(pid)
        return str(path)

    monkeypatch.setattr(cgroups, "find_oom_file", find)
    assert beat()["oom"] == 2
    path.write_text("oom_kill 3\n")
    assert beat()["oom"] == 3
    path.unlink()
    assert "oom" not in beat()
    assert len(asked) == 1  # its group is looked up once


def test_where_no_group_is_to_be_seen_a_beat_tells_the_rest(
    beat: Callable[[], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(_pid: int) -> None:
        return None

    monkeypatch.setattr(cgroups, "find_oom_file", find)
    told = beat()
    assert "oom" not in told
    assert told["step"] == -1
