"""The kernel's count of kills for want of memory is found in both versions of control groups, and never raises."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from allranks_bus import cgroups

V1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"
V2 = "low 0\nhigh 0\nmax 3\noom 2\noom_kill 5\noom_group_kill 0\n"


@pytest.mark.parametrize(
    ("groups", "file", "text", "count"),
    [
        ("0::/user/job\n", "user/job/memory.events", V2, 5),
        ("0::/not/to/be/seen\n", "memory.events", V2, 5),
        ("0::/system.slice/job_7/step_0/task_0\n", "system.slice/job_7/memory.events", V2, 5),
        ("0::/\n", "memory.events", V2, 5),
        ("4:cpu:/x\n5:memory,hugetlb:/job\n0::/\n", "memory/job/memory.oom_control", V1, 7),
        ("5:memory:/docker/abc\n", "memory/memory.oom_control", V1, 7),
        ("0::/\n", "memory.events", "low 0\n", None),
        ("nonsense\n", "memory.events", V2, None),
        ("", "memory.events", V2, None),
    ],
)
def test_the_count_is_found(tmp_path: Path, groups: str, file: str, text: str, count: int | None) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    (tmp_path / "proc" / "42").mkdir(parents=True)
    (tmp_path / "proc" / "42" / "cgroup").write_text(groups)
    found = cgroups.find_oom_file(42, mount=str(tmp_path), proc=str(tmp_path / "proc"))
    assert found == (None if count is None else str(path))
    assert found is None or cgroups.read_oom_kills(found) == count


def test_the_nearest_group_that_counts_tells(tmp_path: Path) -> None:
    for place, count in (("job", 9), ("job/step", 4), ("", 30)):
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / place / "memory.events").write_text(f"oom 1\noom_kill {count}\n")
    (tmp_path / "proc" / "42").mkdir(parents=True)
    (tmp_path / "proc" / "42" / "cgroup").write_text("0::/job/step/task_0\n")
    found = cgroups.find_oom_file(42, mount=str(tmp_path), proc=str(tmp_path / "proc"))
    assert found is not None
    assert cgroups.read_oom_kills(found) == 4


def test_what_is_not_there_is_none() -> None:
    assert cgroups.find_oom_file(2**30) is None
    assert cgroups.read_oom_kills("/nowhere") is None
    assert cgroups.read_oom_kills("/proc") is None
    cgroups.find_oom_file(os.getpid())
