"""`allranks run -- COMMAND`: any program is a run, and ends as it would by itself."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from tests.support import scenario
from tests.support.collector import clean_environment
from tests.support.stored import Stored
from tests.support.terminals import in_terminal
from tests.support.waiting import wait_until

_ALLRANKS = Path(sys.executable).with_name("allranks")
_END_S = 60.0


@pytest.fixture(autouse=True)
def _with_a_collector(home: Path) -> None:
    scenario.start_collector(home)


def _command(
    home: Path, *words: str, options: tuple[str, ...] = ("--project", "wrapped", "--name", "it")
) -> list[str]:
    return [str(_ALLRANKS), "run", *options, "--", *words]


def _run(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(home, *words),
        env=clean_environment(home),
        cwd=home.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=_END_S,
    )


@contextlib.contextmanager
def _stored(home: Path) -> Generator[tuple[Stored, str]]:
    """What is stored, and the id of the only run."""
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        yield stored, run


@pytest.mark.parametrize(
    ("script", "code", "state", "detail"),
    [
        ("echo out; echo err >&2", 0, "finished", {"exit_code": 0}),
        ("echo out; echo err >&2; exit 3", 3, "failed", {"exit_code": 3, "reason": "exited with code 3"}),
        (
            "echo out; echo err >&2; kill -SEGV $$",
            -signal.SIGSEGV,
            "failed",
            {"exit_code": None, "signal": "SIGSEGV", "reason": "killed by SIGSEGV"},
        ),
        (
            "echo out; echo err >&2; kill -KILL $$",
            -signal.SIGKILL,
            "failed",
            {"exit_code": None, "signal": "SIGKILL", "reason": "killed by SIGKILL"},
        ),
    ],
)
def test_a_program_is_seen_as_before_and_kept(
    home: Path, script: str, code: int, state: str, detail: dict[str, object]
) -> None:
    ended = _run(home, "sh", "-c", script)
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "out\n", "err\n")
    with _stored(home) as (stored, run):
        (rank,) = stored.writers(run)
        assert (rank.role, rank.state, rank.detail) == ("rank", state, detail)
        assert (stored.lines(run), stored.lines(run, "stderr")) == ({0: ["out"]}, {0: ["err"]})
        assert stored.rows("SELECT project, name FROM runs") == [("wrapped", "it")]
        assert stored.one("SELECT value->>'$' FROM config WHERE key = 'command'") == f"sh -c '{script}'"


_TRAINING = """
import sys
import allranks

run = allranks.init(project="of its own", config={"lr": 0.1})
print(run.id, run.rank, run.role)
for step in range(10):
    allranks.log({"i": step}, step)
raise ValueError("the loss is not a number")
"""


@pytest.mark.parametrize("words", [(), ("sh", "-c", '"$0" "$1"; exit $?')], ids=["directly", "in a script"])
def test_a_program_that_calls_init_is_the_same_rank_of_the_same_run(home: Path, words: tuple[str, ...]) -> None:
    (home.parent / "train.py").write_text(_TRAINING)
    ended = _run(home, *words, sys.executable, "train.py")
    assert ended.returncode == 1
    assert "allranks:" not in ended.stderr
    with _stored(home) as (stored, run):
        assert stored.lines(run) == {0: [f"{run} 0 rank"]}
        wrapper, program = sorted(stored.writers(run), key=lambda writer: writer.pid)
        assert (wrapper.attempt, wrapper.rank, wrapper.state, wrapper.detail["exit_code"]) == (1, 0, "failed", 1)
        assert (program.attempt, program.rank, program.state) == (1, 0, "failed")
        assert program.detail["exception"]["message"] == "the loss is not a number"
        assert stored.values("i") == {program.pid: [float(step) for step in range(10)]}
        assert stored.lines(run, "stderr")[0][-1] == "ValueError: the loss is not a number"


def test_a_signal_for_the_wrapper_is_one_for_its_command(home: Path) -> None:
    script = "trap 'echo TERM; exit 7' TERM; trap 'echo USR1' USR1; echo up; while :; do sleep 0.05; done"
    with (
        open(home.parent / "out", "wb") as out,
        subprocess.Popen(_command(home, "sh", "-c", script), env=clean_environment(home), stdout=out) as process,
    ):
        seen = (home.parent / "out").read_text
        wait_until(lambda: seen() == "up\n", "the command is up", timeout_s=_END_S)
        process.send_signal(signal.SIGUSR1)
        wait_until(lambda: seen() == "up\nUSR1\n", "it has got SIGUSR1", timeout_s=_END_S)
        process.send_signal(signal.SIGTERM)
        assert process.wait(_END_S) == 7
    with _stored(home) as (stored, run):
        assert stored.lines(run) == {0: ["up", "USR1", "TERM"]}


_COUNTING = """
import signal, time
count = 0
def got(*_):
    global count
    count += 1
signal.signal(signal.SIGINT, got)
print("up", flush=True)
while not count:
    time.sleep(0.01)
time.sleep(0.5)
print("interrupts:", count)
"""


def test_ctrl_c_reaches_the_command_once(home: Path) -> None:
    """The terminal sends it to both."""
    command = _command(home, sys.executable, "-c", _COUNTING)
    with in_terminal(command, env=clean_environment(home), takes_keys=True) as terminal:
        terminal.await_shown(b"up\r\n")
        terminal.type(b"\x03")
        assert terminal.await_end() == 0
    assert b"interrupts: 1\r\n" in terminal.shown
    with _stored(home) as (stored, run):
        assert stored.lines(run)[0][-1] == "interrupts: 1"


@pytest.mark.parametrize(("word", "code"), [("no-such-program", 127), ("/", 126)])
def test_a_command_that_cannot_be_run_is_one_clear_line(home: Path, word: str, code: int) -> None:
    ended = _run(home, word)
    assert ended.returncode == code
    assert ended.stderr.startswith(f"allranks: cannot run {word}: ")
    assert ended.stderr.count("\n") == 1
    with _stored(home) as (stored, run):
        assert [writer.detail["exit_code"] for writer in stored.writers(run)] == [code]


def test_without_a_command_it_says_what_is_missing(home: Path) -> None:
    ended = subprocess.run(
        [_ALLRANKS, "run"], env=clean_environment(home), capture_output=True, text=True, check=False, timeout=_END_S
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "COMMAND" in ended.stderr
