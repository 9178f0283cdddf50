"""Waiting for processes that are not our children, on asyncio and on trio."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Generator

import anyio
import pytest

from allranks_bus import processes
from allranks_bus.processes import ProcessIdentity
from allranks_collector.liveness import Exit, signal_name, wait_for_exit

pytestmark = pytest.mark.anyio

_KERNEL = tuple(map(int, platform.release().split(".")[:2]))
# Once its parent has asked, only PIDFD_GET_INFO tells how a process ended.
_TELLS_OF_REAPED = _KERNEL >= (6, 15)
_DEADLINE_S = 60.0

Start = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Generator[Start]:
    """Starts a Python process that runs a statement once its stdin is closed."""
    started: list[subprocess.Popen[bytes]] = []

    def start(statement: str) -> subprocess.Popen[bytes]:
        program = f"import os, signal, sys; print('up', flush=True); sys.stdin.read(); {statement}"
        process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        return process

    yield start
    for process in started:
        process.kill()
        with process:
            pass


def _identity(pid: int) -> ProcessIdentity:
    found = processes.start_time(pid)
    assert found is not None
    return ProcessIdentity(pid, found, processes.boot_id(), processes.pid_namespace())


def _let_go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()


_ENDS = [
    ("os._exit(0)", Exit(code=0)),
    ("os._exit(3)", Exit(code=3)),
    ("os.kill(os.getpid(), signal.SIGKILL)", Exit(signal="SIGKILL")),
    ("signal.signal(signal.SIGSEGV, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGSEGV)", Exit(signal="SIGSEGV")),
]


@pytest.mark.parametrize(("statement", "end"), _ENDS)
async def test_the_end_of_a_process_is_told_before_its_parent_asks(start: Start, statement: str, end: Exit) -> None:
    process = start(statement)
    identity = _identity(process.pid)
    found: list[Exit] = []
    with anyio.fail_after(_DEADLINE_S):
        async with anyio.create_task_group() as task_group:

            async def wait() -> None:
                found.append(await wait_for_exit(identity))

            task_group.start_soon(wait)
            _let_go(process)
    assert found == [end]


@pytest.mark.parametrize(("statement", "end"), _ENDS)
async def test_a_process_whose_parent_knows_already_is_told_where_the_kernel_can(
    start: Start, statement: str, end: Exit, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start(statement)
    identity = _identity(process.pid)
    wait_readable = anyio.wait_readable

    async def wait_and_reap(fd: int) -> None:  # between the end and the question, the parent was faster
        await wait_readable(fd)
        process.wait(_DEADLINE_S)

    monkeypatch.setattr(anyio, "wait_readable", wait_and_reap)
    _let_go(process)
    with anyio.fail_after(_DEADLINE_S):
        assert await wait_for_exit(identity) == (end if _TELLS_OF_REAPED else Exit())


async def test_where_there_is_no_pidfd_its_entry_in_proc_is_looked_at(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int, flags: int = 0) -> int:
        raise PermissionError(pid, flags)

    monkeypatch.setattr(os, "pidfd_open", refuse)
    process = start("os._exit(5)")
    identity = _identity(process.pid)
    _let_go(process)
    with anyio.fail_after(_DEADLINE_S):
        assert await wait_for_exit(identity) == Exit(code=5)


async def test_a_process_that_is_gone_is_gone_at_once(start: Start) -> None:
    process = start("os._exit(5)")
    identity = _identity(process.pid)
    _let_go(process)
    process.wait(_DEADLINE_S)
    with anyio.fail_after(_DEADLINE_S):
        assert await wait_for_exit(identity) == Exit()


async def test_another_process_of_the_same_pid_is_not_waited_for() -> None:
    me = processes.current()
    other = ProcessIdentity(me.pid, me.start - 1, me.boot_id, me.pid_ns)
    with anyio.fail_after(_DEADLINE_S):
        assert await wait_for_exit(other) == Exit()


def test_waiting_leaks_no_descriptor(start: Start) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  (as the kernel lists them)
    process = start("os._exit(0)")
    identity = _identity(process.pid)
    _let_go(process)
    anyio.run(wait_for_exit, identity)
    with process:
        pass
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@pytest.mark.parametrize(("end", "is_bad"), [(Exit(), False), (Exit(code=0), False), (Exit(code=1), True)])
def test_only_what_is_known_to_be_bad_is_bad(end: Exit, is_bad: bool) -> None:
    assert end.is_bad == is_bad
    assert Exit(signal="SIGTERM").is_bad


def test_signals_without_a_name_have_a_number() -> None:
    assert signal_name(signal.SIGSEGV) == "SIGSEGV"
    assert signal_name(40) == "signal 40"
