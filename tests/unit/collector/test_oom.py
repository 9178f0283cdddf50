"""Kills for want of memory: counted from when a writer came, by file and by beat."""

from __future__ import annotations

from pathlib import Path

import pytest

from allranks_collector import oom
from allranks_collector.oom import OomWatch


def test_only_kills_since_the_writer_came_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "memory.events"
    path.write_text("oom_kill 3\n")

    def find(_pid: int) -> str:
        return str(path)

    monkeypatch.setattr(oom, "find_oom_file", find)
    watch = OomWatch()
    watch.watch(1, 42)
    assert watch.look(1) == 0
    path.write_text("oom_kill 5\n")
    assert watch.look(1) == 2
    path.unlink()
    assert (watch.look(1), watch.look(2)) == (0, 0)


def test_beats_tell_each_kill_once_and_nonsense_is_none() -> None:
    watch = OomWatch()
    told: list[object] = [4, 4, 6, None, "7", True, -1, 6, 7]
    assert [watch.hear(1, count) for count in told] == [0, 0, 2, 0, 0, 0, 0, 0, 1]
