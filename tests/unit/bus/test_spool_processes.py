"""Spools through the death of their writers: real processes, real kills, a real limit of the disk."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from allranks_bus import records
from allranks_bus.errors import SpoolBusy, SpoolError
from allranks_bus.spool import SpoolWriter
from allranks_bus.spool_directory import find_spools
from allranks_bus.spool_reader import SpoolReader

NAME = bytes(range(16))
PROGRAMS = Path(__file__).parent / "programs"


@contextmanager
def _appending(root: Path, *, segment_bytes: int, also: tuple[str, ...] = ()) -> Generator[subprocess.Popen[bytes]]:
    """A process that appends numbered records until it is killed, and prints each number that was kept."""
    command = [sys.executable, str(PROGRAMS / "append_until_killed.py"), str(root), NAME.hex(), str(segment_bytes)]
    with subprocess.Popen([*command, *also], stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def _run(program: str, *arguments: object) -> dict[str, Any]:
    command = [sys.executable, str(PROGRAMS / program), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _contents(reader: SpoolReader) -> list[bytes]:
    """Every record, as a shipper gets them: each batch is released, so that gaps are jumped over."""
    payloads: list[bytes] = []
    at = reader.base
    while not reader.is_empty:
        at = max(at, reader.base)
        count, body = reader.read(at)
        batch = [body[begin:end] for begin, end in records.scan(body)]
        assert len(batch) == count > 0
        payloads += batch
        at += count
        reader.release(at)
    return payloads


@pytest.mark.parametrize("numbers", [1, 300, 1000, 2500])
def test_a_killed_writer_leaves_every_record_that_it_was_told_of(tmp_path: Path, numbers: int) -> None:
    """And at most one more, which was written when the kill came before its `append` could return."""
    with _appending(tmp_path, segment_bytes=60_000) as process:
        assert process.stdout is not None
        told = -1
        while told < numbers:
            told = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        told = max([told, *map(int, process.stdout.read().split())])
        process.wait()
    reader = SpoolReader(tmp_path / NAME.hex())
    assert reader.name == NAME
    assert reader.opening() == b"opening"
    payloads = [payload for payload in _contents(reader) if payload != b"opening"]
    assert payloads == [b"%08d" % number + b"x" * (number % 300) for number in range(len(payloads))]
    assert told + 1 <= len(payloads) <= told + 2
    reader.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_spool_is_busy_while_its_writer_lives(tmp_path: Path) -> None:
    """And free at once when it is dead."""
    with _appending(tmp_path, segment_bytes=60_000) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(SpoolBusy, match="is alive"):
            SpoolReader(tmp_path / NAME.hex())
        process.kill()
        process.wait()
        SpoolReader(tmp_path / NAME.hex()).close()


def test_a_forked_child_does_not_keep_the_spool_busy(tmp_path: Path) -> None:
    """A DataLoader worker may outlive the rank that it worked for."""
    with _appending(tmp_path, segment_bytes=60_000, also=("fork",)) as process:
        assert process.stdout is not None
        numbers: list[int] = []
        # The child's pid is one line among the numbers; it is the only one that is not the next of them.
        while not (child := [number for index, number in enumerate(numbers) if number > index + 1]):
            numbers.append(int(process.stdout.readline()))
        try:
            process.kill()
            process.wait()
            os.kill(child[0], 0)
            SpoolReader(tmp_path / NAME.hex()).close()
        finally:
            os.kill(child[0], signal.SIGKILL)


@pytest.mark.parametrize("limit", [2_020, 5_000, 5_055])
def test_a_full_disk_is_counted_and_overcome(tmp_path: Path, limit: int) -> None:
    """What fits is kept, half a record is cut off, the rest is refused and counted; with room it goes on."""
    told = _run("fill_disk.py", tmp_path, NAME.hex(), limit)
    full = told["full"]
    fits = (limit - 15) // 105
    assert full["kept"] == list(range(fits))
    assert full["refused"] == 200 - fits
    assert full["end"] == 1 + fits
    assert full["suspended"]
    assert full["problem"] in (os.strerror(errno.ENOSPC), os.strerror(errno.EFBIG))
    assert told["after"] == {"end": 2 + fits, "problem": "", "suspended": False}
    payloads = _contents(SpoolReader(tmp_path / NAME.hex()))
    assert [payload[:4] for payload in payloads[1:-1]] == [b"%04d" % number for number in range(fits)]
    assert payloads[-1] == b"room again"


def test_exceptions_of_signal_handlers_lose_and_double_nothing(tmp_path: Path) -> None:
    """A storm of them at any point of an append: what was counted is what is read, and all that was kept is."""
    told = _run("interrupted.py", tmp_path, "raise")
    plain = told["seen"]["plain" * 20]
    assert told["problems"] == []
    assert told["interruptions"] > 100
    assert told["seq"] == told["end"] == sum(told["seen"].values())
    assert told["kept"] <= plain <= told["kept"] + told["interruptions"]
    reader = SpoolReader(tmp_path / bytes(16).hex())
    assert (reader.base, reader.end) == (told["base"], told["end"])


def test_a_signal_handler_may_append(tmp_path: Path) -> None:
    """At any point of another append, each record is kept once."""
    told = _run("interrupted.py", tmp_path, "append")
    assert told["problems"] == []
    assert told["seq"] == told["end"] == sum(told["seen"].values())
    assert told["handled"] > 100
    assert told["seen"]["from the handler"] == told["handled"]
    assert told["seen"]["plain" * 20] == told["kept"]


# -- what a dead writer may have left ------------------------------------------------------------------------------


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """The directory of a writer that has ended: four segments or more, and the newest holds several records."""
    writer = SpoolWriter(tmp_path, NAME, lambda: b"opening", segment_bytes=1000)
    for number in range(35):
        writer.append(b"%03d" % number + bytes(97))
    writer.close()
    return writer.directory


def _segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.seg"))


def _numbers(payloads: list[bytes]) -> list[int]:
    return [int(payload[:3]) for payload in payloads if payload != b"opening"]


def test_a_reader_gives_what_was_left(left: Path) -> None:
    """All of it, in order, numbered as its writer did."""
    reader = SpoolReader(left)
    assert (reader.base, reader.end) == (0, 35 + len(_segments(left)))
    assert reader.held_bytes == sum(path.stat().st_size for path in _segments(left))
    assert _numbers(_contents(reader)) == list(range(35))


def test_a_torn_tail_is_left_out_at_every_offset(left: Path) -> None:
    """However far the last write came."""
    last = _segments(left)[-1]
    whole = last.read_bytes()
    ends = [end for _, end in records.scan(whole)]
    for size in range(ends[-2], len(whole)):
        last.write_bytes(whole[:size])
        reader = SpoolReader(left)
        assert reader.end == int(last.stem) + len(ends) - 1
        reader.close()


@pytest.mark.parametrize("content", [b"", b"\0\0\0", records.frame(b"opening")[:-1]])
def test_a_segment_that_was_just_begun_holds_nothing(left: Path, content: bytes) -> None:
    """The kill came between its making and its OPEN."""
    reader = SpoolReader(left)
    end = reader.end
    reader.close()
    (left / f"{end:020d}.seg").write_bytes(content)
    reader = SpoolReader(left)
    assert reader.end == end
    assert _numbers(_contents(reader)) == list(range(35))
    reader.remove()
    assert not left.exists()


def test_a_segment_that_was_begun_and_given_up_is_passed_over(left: Path) -> None:
    """Its writer went on in the one before; it must not hide the records there."""
    first = _segments(left)[0]
    (left / f"{3:020d}.seg").write_bytes(records.frame(b"opening"))
    assert int(first.stem) < 3 < int(_segments(left)[2].stem)
    reader = SpoolReader(left)
    assert _numbers(_contents(reader)) == list(range(35))
    reader.remove()
    assert not left.exists()


@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_behind_a_damaged_segment_the_next_one_is_given(left: Path, damaged: int) -> None:
    """`base` jumps over what cannot be read, once what lies before it is released."""
    paths = _segments(left)
    body = bytearray(paths[damaged].read_bytes())
    ends = [end for _, end in records.scan(bytes(body))]
    body[ends[3] + 20] ^= 0xFF
    paths[damaged].write_bytes(bytes(body))
    lost = len(ends) - 4
    reader = SpoolReader(left)
    gap = int(paths[damaged].stem) + 4
    assert reader.read(gap) == (0, b"")
    reader.release(gap)
    assert reader.base == int(paths[damaged + 1].stem)
    assert len(_numbers(_contents(reader))) < 35
    reader.close()
    assert lost > 0


def test_a_segment_without_anything_whole_is_passed_over(left: Path) -> None:
    """Wherever it is."""
    paths = _segments(left)
    for path in (paths[0], paths[2]):
        path.write_bytes(b"not a record at all")
    reader = SpoolReader(left)
    assert reader.base == int(paths[1].stem)
    found = _numbers(_contents(reader))
    assert found == sorted(set(found))
    assert 34 in found
    reader.remove()
    assert not left.exists()


def test_what_is_no_segment_is_let_be(left: Path, tmp_path: Path) -> None:
    """Strange names, links, pipes, directories: none of them stops a drain, or is read."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(records.frame(b"999 of somebody else"))
    (left / "notes.txt").write_text("")
    (left / "abc.seg").write_text("")
    (left / f"{'٣' * 20}.seg").write_text("")
    (left / f"{7000:020d}.seg").symlink_to(elsewhere)
    os.mkfifo(left / f"{8000:020d}.seg")
    (left / f"{9000:020d}.seg").mkdir()
    assert _numbers(_contents(SpoolReader(left))) == list(range(35))


def test_an_empty_spool_says_so(tmp_path: Path) -> None:
    """There is nothing to ship, and nobody to ship it for."""
    directory = tmp_path / NAME.hex()
    directory.mkdir()
    reader = SpoolReader(directory)
    assert (reader.is_empty, reader.base, reader.end, reader.held_bytes) == (True, 0, 0, 0)
    with pytest.raises(SpoolError, match="is empty"):
        reader.opening()
    reader.remove()
    assert not directory.exists()


def test_a_spool_that_is_gone_is_a_spool_error(tmp_path: Path, left: Path) -> None:
    """At the opening, and in the middle of reading."""
    with pytest.raises(SpoolError, match="cannot open"):
        SpoolReader(tmp_path / "nowhere")
    reader = SpoolReader(left)
    _segments(left)[0].unlink()
    with pytest.raises(SpoolError, match="cannot read"):
        reader.read(0)
    reader.close()


def test_the_lock_is_not_followed_through_a_link(tmp_path: Path) -> None:
    """A lock file that points elsewhere is no lock."""
    directory = tmp_path / NAME.hex()
    directory.mkdir()
    (directory / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(SpoolError):
        SpoolReader(directory)
    assert not (tmp_path / "victim").exists()


def test_a_reader_that_is_closed_gives_the_spool_back(left: Path) -> None:
    """As it was."""
    SpoolReader(left).close()
    assert _numbers(_contents(SpoolReader(left))) == list(range(35))


def test_a_spool_cannot_be_drained_before_its_writer_has_locked_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drainer that looks while a writer is just coming up must not take the directory away from it."""
    lockf = fcntl.lockf
    seen: list[Path] = []

    def lock_while_somebody_looks(fd: int, operation: int) -> None:
        seen.extend(find_spools(tmp_path))
        lockf(fd, operation)

    monkeypatch.setattr(fcntl, "lockf", lock_while_somebody_looks)
    writer = SpoolWriter(tmp_path, NAME, lambda: b"opening")
    writer.close()
    assert seen == []
    assert list(find_spools(tmp_path)) == [writer.directory]


def test_the_layout_is_that_of_the_protocol(left: Path) -> None:
    """Twenty digits, a lock, nothing else (docs/protocol.md §9)."""
    names = sorted(path.name for path in left.iterdir())
    assert names[-1] == "lock"
    assert all(len(name) == 24 and name[:20].isdecimal() and name.endswith(".seg") for name in names[:-1])
    assert SpoolReader(left).is_empty is False
