"""What the benchmarks of the console print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.console_lines import UPDATES_PER_BAR, record_bars
from benchmarks.viewers import PRINTED
from benchmarks.workers.console_writers import LINE_BYTES, bar_chunks, line_chunks


@pytest.mark.parametrize("chunk_bytes", [1, 6250, 32 * 1024])
@pytest.mark.parametrize("is_coloured", [False, True])
def test_lines_are_whole_and_no_two_alike(chunk_bytes: int, is_coloured: bool) -> None:
    chunks = list(line_chunks(3, 1000, chunk_bytes, is_coloured=is_coloured))
    lines = b"".join(chunks).splitlines(keepends=True)
    assert len(set(lines)) == len(lines) == 1000
    assert {len(line) for line in lines} == {LINE_BYTES}
    assert max(map(len, chunks)) <= max(chunk_bytes, LINE_BYTES)
    assert all((b"\x1b[32m" in line) == is_coloured for line in lines)


def test_recorded_bars_begin_anew_and_end_with_a_line(tmp_path: Path) -> None:
    path = tmp_path / "bars.json"
    size = record_bars(path, 2)
    updates = json.loads(path.read_text())
    assert len(updates) == 2 * UPDATES_PER_BAR
    assert all(f" {number % UPDATES_PER_BAR + 1}/" in update for number, update in enumerate(updates))
    shown = "".join(updates)
    assert len(shown.encode()) == size
    assert shown.count("\n") == 2
    assert shown.endswith("\n")


def test_recorded_bars_in_one_another_go_up(tmp_path: Path) -> None:
    path = tmp_path / "bars.json"
    record_bars(path, 2, is_nested=True)
    updates = json.loads(path.read_text())
    assert len(updates) == 2 * UPDATES_PER_BAR
    assert all("\x1b[A" in update for update in updates)
    assert " 2/2 " in updates[-1]


def test_chunks_of_a_bar_are_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "bar.json"
    path.write_text(json.dumps(["\r█1", "\r█2", "\n"]))
    assert bar_chunks(path, 2) == ["\r█1\r█2".encode(), b"\n"]


def test_a_line_tells_its_number() -> None:
    assert PRINTED.findall("[line 12 printed] [line 13 printed]") == ["12", "13"]
