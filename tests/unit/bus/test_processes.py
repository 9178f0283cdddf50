"""Processes: a pid with its start time names one, and a zombie is dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from tests.support.waiting import wait_until

from allranks_bus import processes
from allranks_bus.processes import (
    ProcessIdentity,
    current,
    is_alive,
    parent_of,
    standing,
    start_time,
    zombie_status,
)

_SLEEP = [sys.executable, "-c", "import sys; sys.stdin.read()"]


def test_this_process_is_alive() -> None:
    """And visible to itself."""
    me = current()
    assert me.pid == os.getpid()
    assert me.start == start_time(me.pid)
    assert is_alive(me.pid, me.start)
    assert me.is_visible
    assert zombie_status(me.pid, me.start) is None


def test_a_pid_that_was_used_again_is_another_process() -> None:
    """Its start time tells."""
    me = current()
    assert not is_alive(me.pid, me.start - 1)
    assert not is_alive(me.pid, 0)


def test_a_child_dies_before_it_is_waited_for() -> None:
    """A zombie has a pid and a start time, and is dead."""
    with subprocess.Popen(_SLEEP, stdin=subprocess.PIPE) as child:
        start = start_time(child.pid)
        assert start is not None
        assert is_alive(child.pid, start)
        assert parent_of(child.pid) == os.getpid()
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert start_time(child.pid) == start
        assert not is_alive(child.pid, start)
        assert zombie_status(child.pid, start) == signal.SIGKILL
        assert zombie_status(child.pid, start + 1) is None
        child.wait()
    assert start_time(child.pid) != start
    assert not is_alive(child.pid, start)


def test_nobody_has_a_pid_that_cannot_be() -> None:
    """Nor a parent."""
    pid = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1
    assert start_time(pid) is None
    assert parent_of(pid) is None
    assert not is_alive(pid, 1)


def test_a_name_may_hold_anything(tmp_path: Path) -> None:
    """Blanks and parentheses, as in a process that calls itself `) Z 1 (`."""
    program = tmp_path / ") Z 1 2 ("
    program.symlink_to(sys.executable)
    with subprocess.Popen(
        [str(program), "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        start = start_time(child.pid)
        assert start is not None
        assert parent_of(child.pid) == os.getpid()
        assert is_alive(child.pid, start)
        child.kill()


def test_processes_elsewhere_are_not_visible() -> None:
    """Of another boot, another namespace, or of which nothing is known."""
    me = current()
    assert not replace(me, boot_id="another").is_visible
    assert not replace(me, pid_ns=me.pid_ns + 1).is_visible
    assert not replace(me, start=0).is_visible
    assert not ProcessIdentity(me.pid, 0, "", 0).is_visible
    assert processes.boot_id() == me.boot_id != ""


# Asks to be traced by its parent (ptrace(2), PTRACE_TRACEME), stops, and waits for its end.
_TRACED = "import ctypes, os, signal; ctypes.CDLL(None).ptrace(0, 0, 0, 0); os.kill(os.getpid(), signal.SIGSTOP)"


def test_a_process_is_seen_to_be_stopped_and_to_go_on() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        start = start_time(child.pid)
        assert start is not None
        child.send_signal(signal.SIGSTOP)
        wait_until(lambda: standing(child.pid, start) == ("T", 0), "it is stopped")
        assert standing(child.pid, start + 1) is None
        child.send_signal(signal.SIGCONT)
        wait_until(lambda: (standing(child.pid, start) or "T")[0] != "T", "it goes on")
        child.kill()
        child.wait()
        assert standing(child.pid, start) is None


def test_who_traces_a_process_is_known() -> None:
    with subprocess.Popen([sys.executable, "-c", _TRACED]) as child:
        start = start_time(child.pid)
        assert start is not None
        wait_until(lambda: standing(child.pid, start) == ("t", os.getpid()), "it is held by its tracer")
        child.kill()
