"""What the benchmarks of the console print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.console_lines import UPDATES_PER_BAR, record_bar
from benchmarks.viewers import PRINTED
from benchmarks.workers.console_writers import LINE_BYTES, bar_chunks, plain_chunks


@pytest.mark.parametrize("chunk_bytes", [1, 6250, 32 * 1024])
def test_plain_lines_are_whole_and_no_two_alike(chunk_bytes: int) -> None:
    chunks = list(plain_chunks(rank=3, count=1000, chunk_bytes=chunk_bytes))
    lines = b"".join(chunks).splitlines(keepends=True)
    assert len(set(lines)) == len(lines) == 1000
    assert {len(line) for line in lines} == {LINE_BYTES}
    assert max(map(len, chunks)) <= max(chunk_bytes, LINE_BYTES)


def test_a_recorded_bar_begins_anew_and_ends_with_a_line(tmp_path: Path) -> None:
    path = tmp_path / "bar.json"
    size = record_bar(path, 2 * UPDATES_PER_BAR)
    shown = "".join(json.loads(path.read_text()))
    assert len(shown.encode()) == size
    assert shown.count("\n") == 2
    assert shown.endswith("\n")
    assert shown.count("\r") >= 2 * UPDATES_PER_BAR
    assert f" {UPDATES_PER_BAR}/{UPDATES_PER_BAR} " in shown


def test_chunks_of_a_bar_are_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "bar.json"
    path.write_text(json.dumps(["\r█1", "\r█2", "\n"]))
    assert bar_chunks(path, 2) == ["\r█1\r█2".encode(), b"\n"]


def test_a_line_tells_its_number() -> None:
    assert PRINTED.findall("[line 12 printed] [line 13 printed]") == ["12", "13"]
