"""Where the threads of a process stand: told in bounds, and by a signal that never hurts whoever gets it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
from tests.support.waiting import wait_until

from allranks import _stacks
from allranks._log import RankLog
from allranks_bus.stack_signal import NUMBER, file_name, main_of

_OFFER = """
import os, signal, sys, threading
from allranks import _stacks
NUMBER = _stacks.NUMBER
def offer():
    thread = threading.Thread(target=_stacks.offer)
    thread.start()
    thread.join()
def files():
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            link = os.readlink("/proc/self/fd/" + fd)
        except OSError:
            continue
        if "allranks-stacks-%d-" % os.getpid() in link:
            found.append(int(fd))
    return found
"""


def _run(program: str) -> str:
    ended = subprocess.run([sys.executable, "-c", _OFFER + program], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, (ended.returncode, ended.stderr)
    return ended.stdout


def _in_thread(name: str, until: threading.Event) -> threading.Thread:
    thread = threading.Thread(target=until.wait, name=name, daemon=True)
    thread.start()
    return thread


def test_the_main_thread_comes_first_and_our_own_are_left_out() -> None:
    until = threading.Event()
    started = [_in_thread("loader", until), _in_thread("allranks-publisher", until)]
    try:
        main, *others = _stacks.threads()
    finally:
        until.set()
        for thread in started:
            thread.join()
    assert (main["main"], main["id"]) == (True, threading.main_thread().ident)
    functions = [frame[2].rpartition(".")[2] for frame in main["frames"]]
    assert functions[:2] == ["threads", "test_the_main_thread_comes_first_and_our_own_are_left_out"]
    assert main["frames"][1][0] == __file__
    names = [thread["name"] for thread in others]
    assert "loader" in names
    assert not [name for name in names if name.startswith("allranks-")]


def _deep(levels: int, then: Callable[[], object]) -> object:
    return then() if not levels else _deep(levels - 1, then)


def test_many_threads_and_deep_stacks_are_told_in_bounds() -> None:
    until = threading.Event()
    started = [_in_thread(f"t{number}", until) for number in range(_stacks.MAX_THREADS + 20)]
    try:
        found: list[dict[str, Any]] = []
        _deep(300, lambda: found.extend(_stacks.threads()))
    finally:
        until.set()
        for thread in started:
            thread.join()
    assert len(found) <= _stacks.MAX_THREADS
    assert len(found[0]["frames"]) == _stacks.MAX_FRAMES
    assert len(msgpack.packb(found) or b"") <= 1.5 * _stacks.MAX_BYTES


def test_an_answer_that_cannot_be_kept_raises_nothing(tmp_path: Path) -> None:
    log = RankLog(tmp_path, b"w" * 16, {"run": "r"}, cap_bytes=1 << 20)
    before = log.end
    _stacks.answer(log, "0" * 32)
    assert log.end == before + 1
    _stacks.answer(log, object())
    log.close()
    _stacks.answer(log, "0" * 32)


def test_only_the_memfd_of_that_very_process_is_taken_for_its_own() -> None:
    link = f"/memfd:{file_name(12, 0x7F01)} (deleted)"
    assert main_of(link, 12) == 0x7F01
    for other in (link.replace("/memfd:", "/tmp/"), "/memfd:x (deleted)", link.replace("7f01", "zz"), ""):
        assert main_of(other, 12) is None
    assert main_of(link, 1) is None


def test_a_handler_of_the_program_is_kept() -> None:
    _run("""
def own(*_): pass
signal.signal(NUMBER, own)
_stacks.offer()
assert signal.getsignal(NUMBER) is own and not files()
""")


def test_a_handler_that_c_code_has_set_is_kept() -> None:
    _run("""
import faulthandler
faulthandler.register(NUMBER, file=1)
_stacks.offer()
assert not files()
""")


def test_the_offer_is_withdrawn_once_the_program_sets_a_handler_and_never_closes_what_is_not_ours() -> None:
    _run("""
offer()
(fd,) = files()
_stacks.look()
assert files() == [fd]
signal.signal(NUMBER, lambda *_: None)
_stacks.look()
assert not files()
""")
    _run("""
offer()
(fd,) = files()
os.dup2(0, fd)  # the program has closed all descriptors, and the number is its own now
signal.signal(NUMBER, lambda *_: None)
_stacks.look()
os.fstat(fd)
""")


def test_a_forked_child_has_a_file_of_its_own_and_a_program_that_takes_the_place_is_not_killed() -> None:
    out = _run("""
offer()
pid = os.fork()
if not pid:
    assert not files()
    offer()
    assert len(files()) == 1
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
code = "import os, signal; os.kill(os.getpid(), %d); print('lives')" % NUMBER
os.execv(sys.executable, [sys.executable, "-c", code])
""")
    assert out == "lives\n"


def test_a_process_that_is_asked_all_the_time_while_it_ends_ends_well() -> None:
    program = _OFFER + "offer()\nprint('offered', flush=True)\nsys.stdin.read(1)\n"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"offered\n"
        process.stdin.close()

        def has_ended() -> bool:
            if process.poll() is None:
                os.kill(process.pid, NUMBER)
            return process.returncode is not None

        wait_until(has_ended, "it ends", timeout_s=60.0)
    assert process.returncode == 0


def test_whoever_gets_the_signal_without_a_handler_is_not_hurt() -> None:
    assert signal.getsignal(NUMBER) is signal.SIG_DFL
    os.kill(os.getpid(), NUMBER)
