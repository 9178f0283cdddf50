"""Launches that look alike are told apart by their places being taken."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from allranks import launches
from allranks.launches import Launch, choose

_TICKS = os.sysconf("SC_CLK_TCK")


def alive(*pids: int) -> Callable[[int, int], bool]:
    return lambda pid, _: pid in pids


# launches, (rank, pid, start in seconds), who lives → number
CASES: dict[str, tuple[list[Launch], tuple[int, int, int], tuple[int, ...], int]] = {
    "the first of all": ([], (0, 10, 100), (), 0),
    "another rank of a launch that lives": ([{0: (10, 100)}], (1, 11, 200), (10,), 0),
    "it asks again": ([{0: (10, 100)}, {0: (20, 300)}], (0, 10, 100), (20,), 0),
    "its place is taken by one that lives": ([{0: (10, 100)}], (0, 20, 200), (10,), 1),
    "its place was taken by one that is gone": ([{0: (10, 100)}], (0, 20, 101), (), 1),
    "a late rank, started with one that died at once": ([{0: (10, 100)}], (1, 11, 101), (), 0),
    "a rank of the next launch comes first, after the first one died": ([{0: (10, 100)}], (1, 21, 130), (), 1),
    "a rank of the newest of two": ([{0: (10, 100), 1: (11, 100)}, {0: (20, 130)}], (1, 21, 131), (20,), 1),
}


@pytest.mark.parametrize("row", CASES)
def test_which_launch(row: str) -> None:
    told, (rank, pid, start), living, number = CASES[row]
    in_ticks = [{rank: (pid, at * _TICKS) for rank, (pid, at) in launch.items()} for launch in told]
    assert choose(in_ticks, rank, pid, start * _TICKS, alive(*living)) == number


_JOIN = """
import sys
from collections.abc import Callable
from pathlib import Path
from allranks import launches
print(launches.join([Path(sys.argv[1])], "key", int(sys.argv[2])), flush=True)
sys.stdin.read()
"""


def test_two_launches_of_real_processes(tmp_path: Path) -> None:
    processes: list[subprocess.Popen[str]] = []

    def join(rank: int) -> str:
        command = [sys.executable, "-c", _JOIN, str(tmp_path), str(rank)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        return process.stdout.readline().strip()

    try:
        assert [join(0), join(1), join(1), join(0), join(0)] == ["0", "0", "1", "1", "2"]
    finally:
        for process in processes:
            process.communicate(timeout=60)


def test_the_same_process_gets_the_same_answer(tmp_path: Path) -> None:
    assert [launches.join([tmp_path], "key", rank) for rank in (0, 0, 1, 1)] == [0, 0, 0, 0]


def test_a_place_that_cannot_be_written_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert launches.join([tmp_path / "file", tmp_path], "key", 0) == 0
    assert (tmp_path / "launches" / "key.json").exists()


@pytest.mark.parametrize("content", ["", "{", "[1]", '[{"0": 3}]', '{"0": [1, 2]}', '[{"a": [1, 2]}]'])
def test_a_broken_file_does_no_harm(tmp_path: Path, content: str) -> None:
    (tmp_path / "launches").mkdir()
    (tmp_path / "launches" / "key.json").write_text(content)
    assert launches.join([tmp_path], "key", 0) == 0


def test_a_lock_that_is_held_does_not_hold_the_training(tmp_path: Path) -> None:
    launches.join([tmp_path], "key", 0)
    with open(tmp_path / "launches" / "key.json") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert launches.join([tmp_path], "key", 0) == 0


def test_old_files_are_removed(tmp_path: Path) -> None:
    launches.join([tmp_path], "old", 0)
    old = tmp_path / "launches" / "old.json"
    os.utime(old, (0, 0))
    launches.join([tmp_path], "new", 0)
    assert not old.exists()
