"""What real programs print is stored as people see it, and what is behind their streams gets the very same bytes."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyte
from tests.support import scenario
from tests.support.collector import clean_environment
from tests.support.stored import Stored
from tests.support.terminals import in_terminal
from tests.support.waiting import wait_until

_ALLRANKS = Path(sys.executable).with_name("allranks")
ROWS, COLUMNS = 40, 100
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
# What tells a program how wide its terminal is, or what it can do, in another way than the terminal itself.
_NOT_OF_A_TERMINAL = (
    *("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "COLORTERM", "TTY_COMPATIBLE", "TTY_INTERACTIVE"),
    # And where the tests lie: the program finds what lies beside it.
    "PYTHONPATH",
)


@dataclass(frozen=True)
class Shown:
    """What a program has sent to its terminal, and the folder that it ran in."""

    sent: bytes
    directory: Path


def _in_terminal(home: Path, program: str, *, is_without: bool = False) -> Shown:
    """Runs a program to its end in a terminal of its own, of ROWS × COLUMNS."""
    env = {name: text for name, text in clean_environment(home).items() if name not in _NOT_OF_A_TERMINAL}
    directory = home.parent / ("terminal-without" if is_without else "terminal")
    directory.mkdir()
    shutil.copy(scenario.PROGRAMS / program, directory / "train.py")
    if is_without:
        shutil.copytree(scenario.WITHOUT, directory / "allranks")
    command = [sys.executable, *scenario.SCRIPT]
    env["TERM"] = "xterm-256color"
    with in_terminal(command, env=env, cwd=directory, size=(ROWS, COLUMNS)) as terminal:
        assert terminal.await_end(timeout_s=scenario.DEADLINE_S) == 0, terminal.shown[-4000:]
    return Shown(terminal.shown, directory)


def _seen(stored: Stored, stream: str = "stdout") -> list[str]:
    """The lines of the only rank of the only run, without colours and without spaces at their ends."""
    (run,) = stored.runs()
    return [_COLOUR.sub("", line).rstrip() for line in stored.lines(run, stream).get(0, [])]


def _screen(sent: bytes) -> list[str]:
    """What a terminal shows that was sent this, wide and high enough to keep all of it."""
    screen = pyte.Screen(4 * COLUMNS, 10 * ROWS)
    pyte.ByteStream(screen).feed(sent)
    shown = [line.rstrip() for line in screen.display]
    while shown and not shown[-1]:
        shown.pop()
    return shown


def _bar(words: str, count: int, width: int) -> str:
    """A bar of tqdm that has come to its end."""
    head, tail = f"{words}: 100%|", f"| {count}/{count}"
    return f"{head}{'█' * (width - len(head) - len(tail))}{tail}"


_BARS = [("one", 200), ("two", 20), ("epochs", 3), ("file 0", 10), ("file 1", 10), ("file 2", 10)]


def test_bars_of_tqdm_are_stored_as_one_line_each_and_their_log_file_holds_the_same_bytes(home: Path) -> None:
    before = scenario.started(home, "console_tqdm.py", is_without=True)
    with before as without, scenario.started(home, "console_tqdm.py") as program:
        without.wait().must_be_well()
        program.wait().must_be_well()
        behind = (program.directory / "stderr").read_bytes()
        assert behind == (without.directory / "stderr").read_bytes()
    assert behind.count(b"\r") > 200
    with scenario.stored(home) as stored:
        # Where there is no terminal, tqdm takes ten places.
        bars = [f"{words}: 100%|{'█' * 10}| {count}/{count}" for words, count in _BARS]
        assert _seen(stored, "stderr") == [*bars, "done"]


def test_bars_of_tqdm_in_a_terminal_are_stored_as_one_line_each(home: Path) -> None:
    before = _in_terminal(home, "console_tqdm.py", is_without=True)
    shown = _in_terminal(home, "console_tqdm.py")
    assert shown.sent == before.sent
    with scenario.stored(home) as stored:
        bars = [_bar(words, count, COLUMNS - 1) for words, count in _BARS]
        bars[1:1] = [f"at {number}" for number in range(20)]
        # A terminal is one picture: both streams are one there.
        assert _seen(stored) == [*bars, "done"] == _screen(shown.sent)


def test_what_rich_shows_at_its_end_is_what_is_stored(home: Path) -> None:
    before = _in_terminal(home, "console_rich.py", is_without=True)
    shown = _in_terminal(home, "console_rich.py")
    assert shown.sent == before.sent
    screen = [line.rstrip() for line in (shown.directory / "screen").read_text("utf-8").splitlines()]
    assert sum("%" in line or "/30" in line for line in screen) == 3
    with scenario.stored(home) as stored:
        assert _seen(stored) == screen
        (run,) = stored.runs()
        (coloured,) = {line for line in stored.lines(run)[0] if "0.500" in line and "\x1b[" in line}
        assert "\x1b[1;31m0.500\x1b[0m" in coloured


def test_lightnings_bars_are_stored_as_they_stand_at_their_ends(home: Path) -> None:
    shown = _in_terminal(home, "console_lightning.py")
    assert shown.sent.count(b"\r") > 50
    with scenario.stored(home) as stored:
        lines = _seen(stored)
    assert lines == _screen(shown.sent)
    first, second = lines[: lines.index("fitted")], lines[lines.index("fitted") + 1 :]
    # The bar moves below what is printed through Lightning; those that check and validate take themselves away.
    assert [line for line in first if line.startswith("in epoch")] == ["in epoch 0", "in epoch 1"]
    assert re.match(r"Epoch 1: 100%\|█+\| 8/8 \[.*it/s, .*loss=.*seen=", first[-1]), first
    # That of rich, which takes as many lines as it has room for.
    assert any(re.match(r"Epoch 1/1\s+━+ 8/8 ", line) for line in second), second
    assert not any(line.startswith("Epoch 0") for line in lines)


_CHILDREN = """
import os, subprocess, sys
import allranks

allranks.init(project="boring")
os.mkdir("data")
for name in ("test.csv", "train.csv"):
    open(f"data/{name}", "w").close()
os.system("ls data")
subprocess.run([sys.executable, "-c", "import sys; print('from a child'); sys.exit('and its error')"])
assert subprocess.run(["ls", "data"], capture_output=True).stdout == b"test.csv\\ntrain.csv\\n"
waiting = "while [ ! -e go ]; do sleep 0.05; done; echo later; echo and its error, later >&2"
subprocess.Popen(["sh", "-c", waiting], start_new_session=True)
print("ended", flush=True)
"""


def test_what_children_print_is_stored_also_of_one_that_outlives_the_program(home: Path) -> None:
    scenario.start_collector(home)
    out, err = ["test.csv", "train.csv", "from a child", "ended"], ["and its error"]
    with scenario.started(home, _CHILDREN) as program:
        assert program.process.wait(60) == 0
        assert program.stdout.splitlines() == out
        wait_until(lambda: [run["state"] for run in _runs(home)] == ["finished"], "it has ended", timeout_s=60)
        (program.directory / "go").touch()
        out.append("later")
        err.append("and its error, later")
        wait_until(lambda: program.stderr.splitlines() == err, "the last child's words are seen", timeout_s=60)
        assert program.stdout.splitlines() == out
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        assert stored.lines(run) == {0: out}
        assert stored.lines(run, "stderr") == {0: err}


_TORCHRUN = """
import os, sys
import allranks

run = allranks.init(project="boring", name=sys.argv[1])
for number in range(50):
    print(f"rank {run.rank} line {number}")
    print(f"rank {run.rank} error {number}", file=sys.stderr)
sys.stdout.flush()
os.system(f"echo rank {run.rank} shell")
"""


def test_torchrun_that_keeps_log_files_itself_holds_the_same_in_them(home: Path) -> None:
    """Both ways at once: only into files, and also into its own output."""
    scenario.start_collector(home)
    ranks = range(4)
    out = {rank: [*(f"rank {rank} line {n}" for n in range(50)), f"rank {rank} shell"] for rank in ranks}
    err = {rank: [f"rank {rank} error {n}" for n in range(50)] for rank in ranks}
    with contextlib.ExitStack() as stack:
        programs = {
            option: stack.enter_context(
                scenario.started(
                    home,
                    _TORCHRUN,
                    option,
                    how=scenario.torchrun(4, "--standalone", "--log-dir=logs", f"--{option}=3"),
                    # Its words on threads are not what this is about.
                    env={"OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": ""},
                )
            )
            for option in ("redirects", "tee")
        }
        ended = {option: program.wait() for option, program in programs.items()}
        for option, program in programs.items():
            ended[option].must_be_well()
            for stream, expected in (("stdout", out), ("stderr", err)):
                files = (program.directory / "logs").glob(f"*/attempt_0/*/{stream}.log")
                assert {int(file.parent.name): file.read_text().splitlines() for file in files} == expected, option
    assert ended["redirects"].stdout == ""
    for rank in ranks:
        mine = [line for line in ended["tee"].stdout.splitlines() if line.startswith(f"[default{rank}]:")]
        assert mine == [f"[default{rank}]:{line}" for line in out[rank]]
    assert len(ended["tee"].stdout.splitlines()) == sum(map(len, out.values()))
    with scenario.stored(home) as stored:
        runs = {name: run for run, name in stored.rows("SELECT id, name FROM runs")}
        assert sorted(runs) == ["redirects", "tee"]
        for run in runs.values():
            assert stored.lines(run) == out
            assert stored.lines(run, "stderr") == err


_ODD_BYTES = r"""
import sys
import allranks

allranks.init(project="boring")
out = sys.stdout.buffer
for number in range(3):
    out.write(b"%d " % number + b"x" * 2**20 + b"\n")
out.write(b"between\n")
odd = b"caf\xc3", b"\xa9 \xff\xfe and \xe4\xb8\n", b"a\0b\0\n", "世界 🎉\n".encode(), b"<b>&amp;\n"
for part in (*odd, b"no newline"):
    out.write(part)
    out.flush()
"""


def test_long_lines_odd_bytes_and_no_last_newline(home: Path) -> None:
    before = scenario.started(home, _ODD_BYTES, is_without=True)
    after = scenario.started(home, _ODD_BYTES)
    with before as without, after as program:
        assert without.wait().exit_code == 0
        program.wait().must_be_well()
        behind = (program.directory / "stdout").read_bytes()
        assert behind == (without.directory / "stdout").read_bytes()
    assert len(behind) > 3 * 2**20
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        lines = stored.lines(run)[0]
    for number, line in enumerate(lines[:3]):
        kept, said, more = line.partition(" … [")
        assert said
        assert f"{number} ".ljust(len(kept), "x") == kept
        assert len(kept) + int(more.removesuffix(" bytes more]").replace(",", "")) == 2 + 2**20
    rest = [line.replace("\0", "") for line in lines[3:]]
    assert rest == ["between", "café �� and �", "ab", "世界 🎉", "<b>&amp;", "no newline"]


_TWO_RANKS = """
import os, subprocess, sys, time
import allranks

run = allranks.init(project="boring", id="abc")
if run.rank == 0:
    other = subprocess.Popen([sys.executable, __file__], env={**os.environ, "RANK": "1"})
for number in range(3):
    print(f"rank {run.rank} line {number}", flush=True)
print(f"\\x1b[31mrank {run.rank} error\\x1b[0m", file=sys.stderr, flush=True)
while not os.path.exists("go"):
    time.sleep(0.01)
print(f"rank {run.rank} ends", flush=True)
if run.rank == 0:
    assert other.wait() == 0
"""


def _logs(home: Path, *options: str) -> subprocess.Popen[str]:
    """`allranks logs` of the run."""
    command = [str(_ALLRANKS), "logs", "abc", *options]
    return subprocess.Popen(command, env=clean_environment(home), stdout=subprocess.PIPE, text=True)


def _printed(command: subprocess.Popen[str]) -> list[str]:
    printed, _ = command.communicate(timeout=60)
    assert command.returncode == 0
    return printed.splitlines()


def test_logs_reads_back_what_all_ranks_or_one_have_printed_and_follows_them_to_their_end(home: Path) -> None:
    scenario.start_collector(home)
    env = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    with scenario.started(home, _TWO_RANKS, env=env) as program:
        wait_until(lambda: _count_lines(home) == 8, "all is stored that has been printed", timeout_s=60)
        following = _logs(home, "--follow", "--stream", "stdout")
        assert following.stdout is not None
        first = [following.stdout.readline().rstrip("\n") for _ in range(6)]
        (program.directory / "go").touch()
        program.wait().must_be_well()
        followed = [*first, *_printed(following)]
    scenario.await_drained(home)
    merged, one, errors, told = (
        _logs(home, *options)
        for options in ((), ("--rank", "1"), ("--stream", "stderr"), ("--json", "--rank", "0", "--stream", "stdout"))
    )
    own = {rank: [f"rank {rank} line {n}" for n in range(3)] + [f"rank {rank} ends"] for rank in (0, 1)}
    lines = {rank: _of_rank(followed, rank) for rank in (0, 1)}
    assert lines == own
    assert len(followed) == 8
    all_ = _printed(merged)
    # Those of the two streams may change places, where they were printed at once.
    for rank in (0, 1):
        assert _apart(_of_rank(all_, rank)) == (own[rank], [f"rank {rank} error"])
    assert len(all_) == 10
    assert _apart([_text(line) for line in _printed(one)]) == (own[1], ["rank 1 error"])
    # What goes into a pipe has no colours.
    assert sorted(_text(line) for line in _printed(errors)) == ["rank 0 error", "rank 1 error"]
    objects = json.loads("\n".join(_printed(told)))
    assert [(entry["rank"], entry["text"]) for entry in objects] == [(0, text) for text in own[0]]


def _apart(lines: list[str]) -> tuple[list[str], list[str]]:
    """Those of stdout and those of stderr."""
    errors = [line for line in lines if line.endswith("error")]
    return [line for line in lines if line not in errors], errors


def _count_lines(home: Path) -> int:
    return sum(len(scenario.ask(home, f"/api/runs/{run['id']}/logs")["lines"]) for run in _runs(home))


def _runs(home: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = scenario.ask(home, "/api/runs")["runs"]
    return found


def _of_rank(lines: list[str], rank: int) -> list[str]:
    return [_text(line) for line in lines if line.split()[0].endswith(f":{rank}")]


def _text(line: str) -> str:
    """What a line of `logs` says, without who said it."""
    return line.partition(" ")[2]


_IN_TURNS = """
import sys, time
import allranks

allranks.init(project="boring")
for number in range(100):
    print(f"out {number}")
    print(f"err {number}", file=sys.stderr)
    time.sleep(0.01)
"""


def test_lines_of_both_streams_stay_whole_in_the_one_log_file_behind_them(home: Path) -> None:
    directory = home.parent / "shell"
    directory.mkdir()
    (directory / "train.py").write_text(_IN_TURNS)
    # As in images: Python writes a line and its end one after the other.
    env = clean_environment(home, PYTHONUNBUFFERED="1")
    with open(directory / "log", "wb") as log:
        process = subprocess.run(
            [sys.executable, "train.py"], env=env, cwd=directory, stdout=log, stderr=log, check=False, timeout=90
        )
    assert process.returncode == 0
    lines = (directory / "log").read_text().splitlines()
    for stream in ("out", "err"):
        assert [line for line in lines if line.startswith(stream)] == [f"{stream} {n}" for n in range(100)]
    assert len(lines) == 200
