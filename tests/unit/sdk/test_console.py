"""Whose output is captured, and whose pipe a process prints into."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allranks import _console, _tee
from allranks._behind import BEHIND_VARIABLE, Behind
from allranks._console import capture
from allranks._place import RunPlace
from allranks._settings import RunSettings
from allranks._streams import key_of
from allranks._wrap import WrappedConsole
from allranks_bus.polling import wait_readable


def _place(tmp_path: Path, **other: Any) -> RunPlace:
    told: dict[str, Any] = {
        "run": "r",
        "project": "p",
        "host": "h",
        "rank": 3,
        "world_size": 4,
        "launch": "l",
        "writer": b"w" * 16,
        "role": "rank",
        "directory": tmp_path / "run",
        "spool_root": tmp_path / "spool",
        "destination": "offline",
        "env": {},
        **other,
    }
    return RunPlace(**told)


class _Started:
    """What a test would have started."""

    def __init__(self, place: RunPlace, streams: list[Any], behind: Behind, settings: RunSettings) -> None:
        self.numbers = [stream.number for stream in streams]
        for stream in streams:
            stream.close()


@pytest.fixture(autouse=True)
def _nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_console, "Console", _Started)


class _Terminal(io.StringIO):
    """No stream of pytest's."""


def _captured(place: RunPlace) -> list[int]:
    with contextlib.redirect_stdout(_Terminal()):
        console: Any = capture(place, RunSettings("online", None, {}))
    return [] if console is None else console.numbers


def test_a_ranks_output_is_captured(tmp_path: Path) -> None:
    assert _captured(_place(tmp_path)) == [1, 2]


@pytest.mark.parametrize("role", ["child", "console"])
def test_that_of_its_children_goes_into_its_pipe_already(tmp_path: Path, role: str) -> None:
    assert _captured(_place(tmp_path, role=role)) == []


@pytest.mark.parametrize("case", ["notebook", "frozen", "asked for"])
def test_where_no_descriptor_serves_what_python_prints_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setattr(_console, "is_notebook", lambda: case == "notebook")
    monkeypatch.setattr(sys, "frozen", case == "frozen", raising=False)
    stream = _Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    console = capture(_place(tmp_path), RunSettings("online", None, {}, "wrap" if case == "asked for" else "fd"))
    assert isinstance(console, WrappedConsole)
    print("shown", file=sys.stdout)
    console.abandon()
    assert (sys.stdout, stream.getvalue()) == (stream, "shown\n")


def test_under_pytest_what_is_printed_can_be_read_back_at_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    console = capture(_place(tmp_path), RunSettings("offline", None, {}))
    assert isinstance(console, WrappedConsole)
    print("by Python")
    os.write(1, b"not by Python\n")
    assert sorted(capfd.readouterr().out.splitlines()) == ["by Python", "not by Python"]
    console.finish(0.0)


def test_nothing_is_captured_where_nobody_wants_it(tmp_path: Path) -> None:
    assert capture(_place(tmp_path), RunSettings("online", None, {}, "off")) is None


def test_a_stream_that_was_closed_at_the_start_is_somebody_elses_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "__stdout__", None)
    assert _captured(_place(tmp_path)) == [2]


def test_what_a_rank_prints_through_its_wrapper_is_kept_by_that_one(tmp_path: Path) -> None:
    keys = {number: key_of(number) for number in (1, 2)}
    told = {BEHIND_VARIABLE: str(Behind("door", "r/l/3", keys))}
    assert _captured(_place(tmp_path, env=told)) == []
    # Another rank is another matter, and so is another pipe.
    assert _captured(_place(tmp_path, env=told, rank=2)) == [1, 2]
    told = {BEHIND_VARIABLE: str(Behind("door", "r/l/3", {**keys, 2: "0-0-0"}))}
    assert _captured(_place(tmp_path, env=told)) == [2]


def test_without_descriptors_to_spare_the_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_more() -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("allranks._warnings._said", set())
    monkeypatch.setattr("allranks._streams.pipe", no_more)
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert _captured(_place(tmp_path)) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert "what is printed is not kept" in capsys.readouterr().err


@given(st.text() | st.lists(st.sampled_from(["1=a", "2=", "=", "x", "", "3=b"]), max_size=5).map(":".join))
def test_whatever_stands_in_the_variable_does_no_harm(text: str) -> None:
    assert set(Behind.parse(text).keys) <= {1, 2}


def test_whose_pipe_it_is_comes_through_the_environment() -> None:
    behind = Behind.parse(str(Behind("ab12", "run-1/launch/7", {1: "d-1f-0", 2: "d-20-0"})))
    assert vars(behind) == {"door": "ab12", "rank": "run-1/launch/7", "keys": {1: "d-1f-0", 2: "d-20-0"}}


def test_descriptors_stay_away_from_the_numbers_that_have_a_meaning() -> None:
    read, write = _tee.pipe()
    try:
        assert min(read, write) >= _tee.LOWEST_FD
        assert not os.get_inheritable(read)
        os.write(write, b"x")
        assert wait_readable((read,), 0.0) == [read]
    finally:
        _tee.close(read)
        _tee.close(write)
