"""What ranks print is seen as before, and kept to the last word, whatever happens to them or to their tees."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support import processes, scenario
from tests.support.collector import CollectorProcess, clean_environment, nobody_listens
from tests.support.stored import stored_in
from tests.support.terminals import in_terminal
from tests.support.waiting import wait_until

from allranks_bus.processes import parent_of

# One read of a tee: what a killed one may have had in its hands.
_READ_BYTES = 64 * 1024

_COUNTING = """
import sys, time
import allranks

run = allranks.init(project="boring")
until, at = int(sys.argv[1]), 0
while at < until:
    for at in range(at, at + 200):
        print(f"line {at:07d} {'x' * 60}")
    at += 1
    time.sleep(0.01)
run.log({"i": 0})
"""


def _tees(home: Path) -> list[int]:
    """The pids of the tees of this home."""
    return [pid for pid in processes.with_home(home) if "tee.program" in processes.command_line(pid)]


def _numbers(text: str) -> list[int]:
    """Of the lines that are whole: a killed tee may leave the beginning of one, its number cut too."""
    return [int(number) for number in re.findall(r"^line ([0-9]{7}) x{60}$", text, re.MULTILINE)]


def _kill_tee(home: Path, other_than: list[int]) -> int:
    """Kills the tee, once there is one besides those; its pid."""
    pid = wait_until(lambda: [pid for pid in _tees(home) if pid not in other_than], "there is a tee")[0]
    os.kill(pid, signal.SIGKILL)
    return pid


def test_a_killed_tee_costs_nothing_that_is_seen_but_what_was_in_its_hands(home: Path) -> None:
    with scenario.started(home, _COUNTING, "60000") as program:
        program.await_line("line 0002000")
        first = _kill_tee(home, [])
        seen = len(program.stdout)
        wait_until(lambda: len(program.stdout) > seen + 500_000, "printing goes on")
        _kill_tee(home, [first])
        ended = program.wait()
    assert ended.exit_code == 0
    assert ended.stderr.count("allranks: what keeps the console was killed; another process does that now") == 1
    assert not ended.left
    numbers = _numbers(ended.stdout)
    assert sorted(set(numbers)) == numbers
    lost = 60_000 - len(numbers)
    assert lost * 73 <= 2 * (_READ_BYTES + 2 * 73)
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        kept = _numbers("\n".join(stored.lines(run)[0]))
        # What was in its hands may have been seen and not kept: a read, and what it was gathering.
        assert sorted(set(kept)) == kept
        assert (60_000 - len(kept)) * 73 <= 2 * 4 * _READ_BYTES
        assert stored.values("i")


def test_after_too_many_killed_tees_the_console_is_given_back(home: Path) -> None:
    with scenario.started(home, _COUNTING, "400000") as program:
        program.await_line("line 0002000")
        killed: list[int] = []
        for _ in range(4):
            killed.append(_kill_tee(home, killed))
        wait_until(lambda: "killed too often" in program.stderr, "it says so")
        seen = len(program.stdout)
        wait_until(lambda: len(program.stdout) > seen + 200_000, "printing goes on")
        assert not _tees(home)
        program.process.send_signal(signal.SIGTERM)
        program.process.wait(60)
    # The moment of giving back may let lines change places, and no more.
    numbers = _numbers(program.stdout)
    assert len(set(numbers)) == len(numbers)
    assert (max(numbers) + 1 - len(numbers)) * 73 <= 4 * (_READ_BYTES + 2 * 73)
    with scenario.stored(home):
        pass


_LAST_WORDS = """
import ctypes, faulthandler, os, signal, subprocess, sys
import allranks

run = allranks.init(project="boring")
run.log({"i": 0})
print("before", flush=True)
ending = sys.argv[1]
if ending == "SIGKILL":
    print("no newline", end="", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
elif ending == "_exit":
    os.write(2, b"about to leave\\n")
    os._exit(3)
elif ending == "segfault":
    faulthandler.enable()
    ctypes.string_at(0)
elif ending == "abort":
    libc = ctypes.CDLL(None)
    libc.puts(b"from C")
    libc.fflush(None)
    libc.__assert_fail(b"loss == loss", b"loss.cu", 7, b"backward")
elif ending == "exception":
    raise ValueError("the loss is not a number")
elif ending == "thread":
    import threading

    class Late:
        def __del__(self):
            os.write(1, b"the very last word\\n")

    keep = [Late()]
    sys.modules["late"] = keep
"""


@pytest.mark.parametrize(
    ("ending", "stdout", "stderr"),
    [
        ("SIGKILL", ["before", "no newline"], []),
        ("_exit", ["before"], ["about to leave"]),
        ("segfault", ["before"], ["Fatal Python error: Segmentation fault", "string_at"]),
        ("abort", ["before", "from C"], ["loss.cu:7: backward: Assertion `loss == loss' failed."]),
        ("exception", ["before"], ["ValueError: the loss is not a number"]),
        ("thread", ["before", "the very last word"], []),
    ],
)
def test_last_words_are_kept(home: Path, ending: str, stdout: list[str], stderr: list[str]) -> None:
    scenario.start_collector(home)  # some of these do not live long enough to do that
    with scenario.started(home, _LAST_WORDS, ending, env={"PYTHONFAULTHANDLER": ""}) as program:
        ended = program.wait()
    assert not ended.left
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        assert stored.lines(run)[0] == stdout
        told = "\n".join(stored.lines(run, "stderr").get(0, []))
        for words in stderr:
            assert words in told
            assert words in program.stderr
        assert program.stdout.splitlines() == stdout


@pytest.mark.parametrize("ending", ["SIGKILL", "_exit"])
def test_what_a_dead_rank_left_is_delivered_to_a_collector_elsewhere(home: Path, ending: str) -> None:
    """Nobody drains spools here, as if the collector were on another host: the tee does it at its end."""
    settings = {"ALLRANKS_DRAIN_ORPHANS": "false"}
    with CollectorProcess(home.parent / "elsewhere", settings) as collector:
        with scenario.started(home, _LAST_WORDS, ending, env={"ALLRANKS_URL": collector.url}) as program:
            ended = program.wait()
        assert not ended.left
        scenario.await_drained(home)
        collector.stop()
        with stored_in(collector.database) as stored:
            (run,) = stored.runs()
            assert stored.lines(run)[0][0] == "before"
            assert list(stored.values("i").values()) == [[0.0]]


_CHILDREN = """
import os
import allranks

run = allranks.init(project="boring")
for number in range(3):
    if not os.fork():
        run.log({"i": number})
        os._exit(0)
for number in range(3):
    os.wait()
run.finish()
"""


def test_what_children_left_is_delivered_though_their_rank_has_finished(home: Path) -> None:
    settings = {"ALLRANKS_DRAIN_ORPHANS": "false"}
    quiet = {"PYTHONWARNINGS": "ignore::DeprecationWarning"}
    with CollectorProcess(home.parent / "elsewhere", settings) as collector:
        with scenario.started(home, _CHILDREN, env={"ALLRANKS_URL": collector.url, **quiet}) as program:
            program.wait().must_be_well()
        scenario.await_drained(home)
        collector.stop()
        with stored_in(collector.database) as stored:
            assert sorted(stored.values("i").values()) == [[0.0], [1.0], [2.0]]


_ORPHANED = """
import os, signal, time
import allranks

run = allranks.init(project="boring")
run.log({"i": 0})
print("the last words", flush=True)
if not os.fork():
    while not os.path.exists("go"):
        time.sleep(0.01)
    print("the orphan's", flush=True)
    while not os.path.exists("end"):
        time.sleep(0.01)
    os._exit(0)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("drains", ["true", "false"], ids=["collector here", "collector elsewhere"])
def test_last_words_do_not_wait_for_orphans(home: Path, drains: str) -> None:
    """Who has outlived the rank may print for ever, or never."""
    directory = home.parent / "program"
    directory.mkdir()
    with CollectorProcess(home, {"ALLRANKS_DRAIN_ORPHANS": drains}) as collector:

        def lines() -> list[str]:
            runs = [run["id"] for run in collector.get("/api/runs")["runs"]]
            return [line["text"] for run in runs for line in collector.get(f"/api/runs/{run}/logs")["lines"]]

        env = {"ALLRANKS_URL": collector.url}
        with scenario.started(home, _ORPHANED, env=env, directory=directory) as program:
            program.process.wait(60)
            expected = ["the last words"]
            wait_until(lambda: lines() == expected, "the last words are stored", timeout_s=60)
            (directory / "go").touch()
            expected.append("the orphan's")
            wait_until(lambda: lines() == expected, "the orphan's words are stored", timeout_s=60)
            (directory / "end").touch()
            assert wait_until(lambda: not _tees(home), "the tee has ended", timeout_s=60)
        assert program.stdout.splitlines() == expected
        scenario.await_drained(home)


def test_without_any_collector_a_tee_gives_up_in_time_and_leaves_everything(home: Path) -> None:
    with nobody_listens() as url, scenario.started(home, _LAST_WORDS, "_exit", env={"ALLRANKS_URL": url}) as program:
        assert program.process.wait(60) == 3
        wait_until(lambda: not processes.with_home(home), "its tee has ended")
    assert len(list((home / "spool").glob("*/*.seg"))) == 2


_OUTLIVED = """
import os, time
import allranks

allranks.init(project="boring")
if os.fork():
    print("parent", flush=True)
    os._exit(0)
while os.path.exists("wait"):
    time.sleep(0.01)
print("child, later", flush=True)
"""


def test_a_child_that_outlives_its_parent_prints_on(home: Path) -> None:
    directory = home.parent / "program"
    directory.mkdir()
    (directory / "wait").touch()
    scenario.start_collector(home)
    with scenario.started(home, _OUTLIVED, directory=directory) as program:
        program.process.wait(60)
        wait_until(lambda: program.stdout == "parent\n", "the parent's words are seen")
        (directory / "wait").unlink()
        wait_until(lambda: program.stdout == "parent\nchild, later\n", "those of its child are seen")
        wait_until(lambda: not _tees(home), "the tee ends with the last who could print")
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        assert stored.lines(run) == {0: ["parent", "child, later"]}


def test_ctrl_c_ends_the_program_and_its_last_words_are_kept(home: Path) -> None:
    program_text = "import time, allranks\nallranks.init(project='boring')\nprint('up', flush=True)\ntime.sleep(60)\n"
    with scenario.started(home, program_text) as program:
        program.await_line("up")
        program.interrupt()
        ended = program.wait()
    assert (ended.exit_code, ended.left) == (-signal.SIGINT, {})
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        assert stored.lines(run, "stderr")[0][-1] == "KeyboardInterrupt"


_ODD_STREAMS = """
import io, os, sys
import allranks

case = sys.argv[1]
run = allranks.init(project="boring")
if case == "dup2":
    print("kept", flush=True)
    saved = os.dup(1)
    os.dup2(os.open("elsewhere", os.O_WRONLY | os.O_CREAT), 1)
    print("not ours", flush=True)
    run.finish()
    print("nor this", flush=True)
elif case == "replaced":
    text, sys.stdout = sys.stdout, io.StringIO()
    print("swallowed")
    text.write("kept\\n")
    text.flush()
    run.finish()
    assert sys.stdout.getvalue() == "swallowed\\n"
elif case == "finish":
    print("kept")
    run.finish()
    print("not kept")
elif case == "children":
    import subprocess
    try:
        os.wait()
    except ChildProcessError:
        print("kept", flush=True)
    subprocess.run(["sh", "-c", "echo from a child; echo and its stderr >&2"])
"""


@pytest.mark.parametrize(
    ("case", "seen", "kept"),
    [
        ("dup2", ["kept"], ["kept"]),
        ("replaced", ["kept"], ["kept"]),
        ("finish", ["kept", "not kept"], ["kept"]),
        ("children", ["kept", "from a child"], ["kept", "from a child"]),
    ],
)
def test_what_the_program_does_with_its_streams_is_respected(
    home: Path, case: str, seen: list[str], kept: list[str]
) -> None:
    scenario.start_collector(home)  # else this process does, which for a moment is a child
    ended = scenario.run(home, _ODD_STREAMS, case)
    assert (ended.exit_code, ended.left, ended.stdout.splitlines()) == (0, {}, seen), ended.stderr
    if case == "dup2":
        assert (home.parent / "program-0" / "elsewhere").read_text() == "not ours\nnor this\n"
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        assert stored.lines(run) == {0: kept}


_ENDLESS = """
import sys
import allranks

allranks.init(project="boring")
at = 0
try:
    while True:
        at += 1
        print(f"line {at}", flush=True)
except OSError as error:
    sys.stderr.write(f"errno {error.errno}\\n")
    sys.stdout = None
"""


def _shell(home: Path, script: str, program: str) -> subprocess.CompletedProcess[str]:
    """Runs `script` in a shell, where $TRAIN is the command of the program."""
    directory = home.parent / "shell"
    directory.mkdir()
    (directory / "train.py").write_text(program)
    env = {**clean_environment(home), "TRAIN": f"{sys.executable} train.py"}
    return subprocess.run(
        ["sh", "-c", script], env=env, cwd=directory, capture_output=True, text=True, check=False, timeout=90
    )


@pytest.mark.parametrize(
    ("script", "problem", "at_least"),
    [("$TRAIN > /dev/full", errno.ENOSPC, 1), ("$TRAIN | head -3 > head", errno.EPIPE, 3)],
    ids=["full disk", "reader gone"],
)
def test_what_is_behind_a_stream_fails_as_without_us(home: Path, script: str, problem: int, at_least: int) -> None:
    ended = _shell(home, script, _ENDLESS)
    assert f"errno {problem}\n" in ended.stderr
    if problem == errno.EPIPE:
        assert (home.parent / "shell" / "head").read_text() == "line 1\nline 2\nline 3\n"
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        lines = stored.lines(run)[0]
        # What had been printed by then; the rest went to where it failed.
        assert len(lines) >= at_least
        assert lines[:-1] == [f"line {n}" for n in range(1, len(lines))]
        assert lines[-1]
        assert f"line {len(lines)}".startswith(lines[-1])


_ENDLESS_CHILD = """
import subprocess
import allranks

run = allranks.init(project="boring")
print("first", flush=True)
child = subprocess.Popen(["yes", "line"])
run.log({"signal": -child.wait()})
"""


def test_a_child_that_prints_to_a_reader_that_has_gone_ends_as_without_us(home: Path) -> None:
    """Nobody but SIGPIPE ends it."""
    ended = _shell(home, "$TRAIN | head -3 > head", _ENDLESS_CHILD)
    assert not ended.stderr
    assert (home.parent / "shell" / "head").read_text() == "first\nline\nline\n"
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        assert list(stored.values("signal").values()) == [[float(signal.SIGPIPE)]]
        assert stored.lines(run)[0][:2] == ["first", "line"]


def test_a_command_whose_reader_has_gone_ends_as_without_us(home: Path) -> None:
    ended = _shell(home, f"{sys.executable} -m allranks.run_command -- yes | head -3 > head", "")
    assert not ended.stderr
    assert (home.parent / "shell" / "head").read_text() == "y\ny\ny\n"
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        assert set(stored.lines(run)[0][:-1]) == {"y"}


_NAMING = """
import sys
import allranks

run = allranks.init(project="boring")
run.log({"i": 1})
for stream in (sys.stdout, sys.stderr):
    if stream is not None:
        print(stream.name, file=stream)
"""


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_stay_closed(home: Path, closed: str) -> None:
    ended = _shell(home, f"$TRAIN {closed}", _NAMING)
    assert ended.returncode == 0
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        assert stored.lines(run) == ({} if ">&-" in closed.split() else {0: ["<stdout>"]})
        assert stored.lines(run, "stderr") == ({} if "2>&-" in closed else {0: ["<stderr>"]})
        assert list(stored.values("i").values()) == [[1.0]]


_NOHUP = """
import os, signal, sys
import allranks

signal.signal(signal.SIGHUP, signal.SIG_IGN)
run = allranks.init(project="boring")
print("on the terminal", flush=True)
at = 0
try:
    while True:
        at += 1
        print(f"line {at}", flush=True)
except OSError as error:
    run.log({"errno": error.errno})
    sys.stdout = sys.stderr = None
"""


def test_a_terminal_that_has_gone_is_met_as_without_us(home: Path) -> None:
    """As under `nohup` with its output still on the terminal: SIGHUP is ignored, and writing fails."""
    directory = home.parent / "nohup"
    directory.mkdir()
    (directory / "train.py").write_text(_NOHUP)
    with in_terminal([sys.executable, "train.py"], env=clean_environment(home), cwd=directory) as terminal:
        terminal.await_shown(b"line 5")
        terminal.hang_up()
        assert terminal.process.wait(60) == 0
    assert not processes.left_with_home(home) or scenario.collectors(home)
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        assert stored.lines(run)[0][:6] == ["on the terminal", *(f"line {at}" for at in range(1, 6))]
        keys = "SELECT value FROM points JOIN series USING (series) WHERE key = 'errno'"
        assert stored.one(keys) == errno.EIO


_CURSES = """
import curses
import allranks

allranks.init(project="boring")

def draw(window):
    window.addstr("ready")
    window.refresh()
    return window.getch()

print("key", curses.wrapper(draw))
print("line", input("now: "))
"""


def test_a_program_on_the_whole_screen_gets_its_keys_one_by_one_and_unseen(home: Path) -> None:
    directory = home.parent / "curses"
    directory.mkdir()
    (directory / "train.py").write_text(_CURSES)
    env = {**clean_environment(home), "TERM": "xterm"}
    with in_terminal([sys.executable, "train.py"], env=env, cwd=directory) as terminal:
        terminal.await_shown(b"ready")
        assert terminal.modes() != terminal.modes_at_first
        terminal.type(b"q")
        terminal.await_shown(b"now: ")
        terminal.type(b"on\r")
        assert terminal.await_end() == 0
        assert terminal.modes() == terminal.modes_at_first
    assert b"readyq" not in terminal.shown
    assert b"key 113\r\n" in terminal.shown
    assert terminal.shown.endswith(b"line on\r\n")
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        assert stored.lines(run)[0][-2:] == ["key 113", "now: line on"]


_DAEMON = """
import os
import allranks

run = allranks.init(project="boring")
print("before", flush=True)
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
for fd in (0, 1, 2):
    os.close(fd)
    os.open(os.devnull, os.O_RDWR)
for i in range(10):
    allranks.log({"i": i})
    print("to nobody", flush=True)
allranks.finish()
open("done", "w").close()
"""


def test_a_daemon_leaves_its_terminal_and_no_tee_waits_for_it(home: Path) -> None:
    directory = home.parent / "daemon"
    scenario.start_collector(home)
    with scenario.started(home, _DAEMON, directory=directory) as program:
        assert program.process.wait(60) == 0
        wait_until((directory / "done").exists, "the daemon has worked", timeout_s=60)
        wait_until(lambda: not _tees(home), "its tee has ended", timeout_s=60)
        assert program.stdout == "before\n"
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        assert stored.lines(run) == {0: ["before"]}
        assert list(stored.values("i").values()) == [[float(i) for i in range(10)]]


_WRAPPED = """
import os, subprocess, sys
import allranks

run = allranks.init(project="boring", console="wrap")
before = sys.stdout
print("by Python")
print("and its stderr", file=sys.stderr)
os.write(1, b"not by Python\\n")
subprocess.run(["echo", "by a child"])
child = os.fork()
if not child:
    print("of no run yet")
    run.log({"i": 0})
    print("by a child of the rank", flush=True)
    allranks.finish()
    os._exit(0)
os.waitpid(child, 0)
assert sys.stdout is before
if sys.argv[1] == "finish":
    run.finish()
    print("after it")
else:
    print("the last words", flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(("ending", "word"), [("finish", []), ("killed", ["the last words"])])
def test_without_a_tee_what_python_prints_is_kept(home: Path, ending: str, word: list[str]) -> None:
    scenario.start_collector(home)
    quiet = {"PYTHONWARNINGS": "ignore::DeprecationWarning", "PYTHONUNBUFFERED": "1"}
    with scenario.started(home, _WRAPPED, ending, env=quiet) as program:
        program.process.wait(60)
        assert not _tees(home)
        shown = ["by Python", "not by Python", "by a child", "of no run yet", "by a child of the rank"]
        assert program.stdout.splitlines() == [*shown, *(word or ["after it"])]
        assert program.stderr == "and its stderr\n"
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        assert sorted(stored.lines(run)[0]) == sorted(["by Python", "by a child of the rank", *word])
        assert stored.lines(run, "stderr") == {0: ["and its stderr"]}


@pytest.mark.parametrize("mode", ["fd", "wrap"])
def test_what_a_program_printed_last_is_stored_elsewhere_though_it_did_not_finish(home: Path, mode: str) -> None:
    program = """
import allranks

run = allranks.init(project="boring")
print("the last words")
"""
    settings = {"ALLRANKS_DRAIN_ORPHANS": "false"}
    with CollectorProcess(home.parent / "elsewhere", settings) as collector:
        env = {"ALLRANKS_URL": collector.url, "ALLRANKS_CONSOLE": mode}
        scenario.run(home, program, env=env).must_be_well()
        scenario.await_drained(home)
        collector.stop()
        with stored_in(collector.database) as stored:
            (run,) = stored.runs()
            assert stored.lines(run) == {0: ["the last words"]}


_FLOOD = """
import allranks

run = allranks.init(project="boring")
for at in range(20_000):
    print(f"line {at:07d} {'x' * 60}")
print("the last words")
"""


@pytest.mark.parametrize("mode", ["fd", "wrap"])
def test_of_a_rank_that_prints_without_end_the_rest_is_seen_and_counted(home: Path, mode: str) -> None:
    limits = {"ALLRANKS_CONSOLE_RATE_MB": "0.01", "ALLRANKS_CONSOLE_BURST_MB": "0.2", "ALLRANKS_CONSOLE": mode}
    ended = scenario.run(home, _FLOOD, env=limits)
    ended.must_be_well()
    assert _numbers(ended.stdout) == list(range(20_000))
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        lines = stored.lines(run)[0]
        assert lines[-1] == "the last words"
        kept = _numbers("\n".join(lines))
        assert kept[:2000] == list(range(2000))
        notes = [text for (text,) in stored.rows("SELECT text FROM lines WHERE stream = 0 ORDER BY number")]
        told = re.findall(r"\[([0-9,]+) lines \(.*ALLRANKS_CONSOLE_RATE_MB", "\n".join(notes))
        assert len(told) == len(notes)
        assert sum(int(count.replace(",", "")) for count in told) == 20_000 - len(kept)


_STANDING = """
import os, sys, time
import allranks, allranks._tee

if sys.argv[1] == "no shell":  # as in a container that has little more than Python
    allranks._tee._SHELL = ("/nowhere/sh",)
run = allranks.init(project="boring")
print("up", flush=True)
while not os.path.exists("go"):
    time.sleep(0.01)
for at in range(200_000):
    print(f"line {at:07d} {'x' * 60}")
print("flooded", flush=True)
while not os.path.exists("end"):
    time.sleep(0.01)
"""


@pytest.mark.parametrize("how", ["by a shell", "no shell"])
def test_a_tee_is_small_is_nobodys_child_minds_no_signal_and_ends_with_its_rank(home: Path, how: str) -> None:
    directory = home.parent / "program"
    with scenario.started(home, _STANDING, how, directory=directory) as program:
        program.await_line("up")
        (tee,) = wait_until(lambda: _tees(home), "there is a tee")
        assert parent_of(tee) != program.pid
        assert os.getsid(tee) != os.getsid(program.pid)  # a terminal's Ctrl-C does not reach it, and if it did:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
            os.kill(tee, number)
        (directory / "go").touch()
        program.await_line("flooded")
        assert _tees(home) == [tee]
        assert 0 < processes.resident_bytes(tee) <= 15_000_000
        (directory / "end").touch()
        ended = program.wait()
    ended.must_be_well()
    # Gone, and no zombie either.
    wait_until(lambda: not Path(f"/proc/{tee}").exists(), "its tee is gone")
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        assert stored.lines(run)[0][-1] == "flooded"


_HELD_UP = """
import sys, threading
import allranks

run = allranks.init(project="boring")
held_up = threading.Thread(target=lambda: print("x" * 4_000_000, flush=True))
held_up.start()
for at in range(20):
    sys.stderr.write(f"line {at}\\n")
    run.log({"i": at})
sys.stderr.write("done\\n")
sys.stderr.flush()
"""


def test_a_reader_that_stands_still_holds_up_its_own_stream_alone(home: Path) -> None:
    """And when it goes on, it gets everything."""
    directory = home.parent / "held-up"
    directory.mkdir()
    (directory / "train.py").write_text(_HELD_UP)
    with (
        open(directory / "stderr", "wb") as stderr,
        subprocess.Popen(
            [sys.executable, "train.py"],
            env=clean_environment(home),
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=stderr,
        ) as process,
    ):
        wait_until(lambda: "done" in (directory / "stderr").read_text(), "stderr goes on")
        assert process.stdout is not None
        assert process.stdout.read() == b"x" * 4_000_000 + b"\n"
        assert process.wait(60) == 0
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        assert stored.lines(run, "stderr")[0][:-1] == [f"line {at}" for at in range(20)]
        assert list(stored.values("i").values()) == [[float(at) for at in range(20)]]
