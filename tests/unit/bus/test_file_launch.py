"""Starting shippers: one however many ask, not too often, and without a trace in the process that asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from tests.support.collector import clean_environment
from tests.support.outboxes import Box, kill_shippers_of, make_box, shippers_of
from tests.support.waiting import wait_until

from allranks_bus.files import launch as file_launch
from allranks_bus.files.launch import ensure_shipper, note_that_it_works
from allranks_bus.files.outbox import LOG, START, is_locked
from allranks_bus.spool_directory import LOCK

_ASK = (
    "import sys; from pathlib import Path; from allranks_bus.files.launch import ensure_shipper\n"
    "print('ready', flush=True); sys.stdin.read(1); print(ensure_shipper(Path(sys.argv[1]), {}))"
)


@pytest.fixture
def box(tmp_path: Path) -> Generator[Box]:
    made = make_box(tmp_path, "tcp://127.0.0.1:1")
    yield made
    kill_shippers_of(made.directory)


def _start_nothing(*_: object, **__: object) -> None:
    pass


def _env(box: Box) -> dict[str, str]:
    return clean_environment(box.root)


def _age(path: Path, by_s: float) -> None:
    then = path.stat().st_mtime_ns - round(by_s * 1e9)
    os.utime(path, ns=(then, then))


def test_a_shipper_is_nobodys_child_and_in_a_session_of_its_own(box: Box) -> None:
    with box.user():
        assert ensure_shipper(box.directory, _env(box))
        wait_until(lambda: is_locked(box.directory / LOCK), "it is at work")
        (pid,) = shippers_of(box.directory)
        assert os.getsid(pid) != os.getsid(0)
        assert str(pid) not in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        assert {str(Path(f"/proc/{pid}/fd/{fd}").readlink()) for fd in range(3)} == {
            "/dev/null",
            str(box.directory / LOG),
        }
        assert not ensure_shipper(box.directory, _env(box))


def test_eight_that_ask_at_once_start_one(box: Box) -> None:
    with box.user():
        askers = [
            subprocess.Popen(
                [sys.executable, "-c", _ASK, str(box.directory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=_env(box),
            )
            for _ in range(8)
        ]
        for asker in askers:
            assert asker.stdout is not None
            assert asker.stdout.readline() == b"ready\n"
        for asker in askers:
            assert asker.stdin is not None
            asker.stdin.write(b"x")
            asker.stdin.flush()
        told = [asker.communicate(timeout=60)[0] for asker in askers]
        assert sorted(told) == [b"False\n"] * 7 + [b"True\n"]


def test_one_that_was_killed_is_started_again_but_not_at_once(box: Box) -> None:
    with box.user():
        assert ensure_shipper(box.directory, _env(box))
        wait_until(lambda: is_locked(box.directory / LOCK), "it is at work")
        for pid in shippers_of(box.directory):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_locked(box.directory / LOCK), "it is gone")
        (box.directory / START).touch()  # a moment ago, however long it took to come to work
        assert not ensure_shipper(box.directory, _env(box))
        _age(box.directory / START, file_launch.START_AGAIN_S)
        assert ensure_shipper(box.directory, _env(box))


def test_one_that_always_ends_at_once_is_started_less_and_less_often(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_launch, "start_helper", _start_nothing)
    box.make()
    pauses: list[float] = []
    for _ in range(12):
        assert ensure_shipper(box.directory, {})
        pause = 0.0
        while not ensure_shipper(box.directory, {}):
            _age(box.directory / START, 1.0)
            pause += 1.0
        pauses.append(pause)
        _age(box.directory / START, 100.0)
    assert pauses[0] == 2.0
    assert pauses == sorted(pauses)
    assert max(pauses) == 64.0
    note_that_it_works(box.directory)
    assert not ensure_shipper(box.directory, {})
    _age(box.directory / START, 2.0)
    assert ensure_shipper(box.directory, {})


def test_a_clock_that_was_put_back_does_not_keep_it_from_starting(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_launch, "start_helper", _start_nothing)
    box.make()
    assert ensure_shipper(box.directory, {})
    _age(box.directory / START, -3600.0)
    assert ensure_shipper(box.directory, {})


def test_a_shipper_that_cannot_be_started_is_told(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nothing")
    box.make()
    with pytest.raises(FileNotFoundError):
        ensure_shipper(box.directory, {})
    with pytest.raises(OSError, match="No such file"):
        ensure_shipper(box.directory / "nothing", {})
