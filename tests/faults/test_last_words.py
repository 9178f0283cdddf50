"""What the ranks of a job printed last, each of which ends in its own way; and what a killed tee had before it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support import processes, scenario
from tests.support.waiting import wait_until

# Each of them is a rank of one job. What C and C++ print does not pass through Python.
_ENDINGS = ("segfault", "terminate", "double free", "killed", "children")
_CRASHING = r"""
import ctypes, faulthandler, os, signal, subprocess, sys
import allranks

ENDINGS = sys.argv[1].split(",")

def step(ending):
    if ending == "segfault":
        libc.memset(8, 0, 64)
    elif ending == "terminate":
        # What a `throw std::runtime_error(…)` becomes that nobody catches.
        ctypes.CDLL("libstdc++.so.6")._ZSt21__throw_runtime_errorPKc(b"the loss is not finite")
    elif ending == "double free":
        libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
        block = libc.malloc(40)
        libc.free(block)
        libc.free(block)
    elif ending == "killed":
        for number in range(2000):
            print(f"rank 3 step {number}")
        print("no newline", end="", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    elif ending == "children":
        subprocess.run([sys.executable, "-c", "import os; print('the child', flush=True); os.abort()"])
        sys.exit("a child has died")

run = allranks.init(project="boring")
faulthandler.enable()
libc = ctypes.CDLL(None)
libc.printf(b"rank %d in C\n", run.rank)
libc.fflush(None)
step(ENDINGS[run.rank])
"""


@dataclass(frozen=True)
class Words:
    """What a rank has printed: what was seen of it, and what is stored under it, line by line."""

    exit_code: int
    seen: tuple[list[str], list[str]]
    stored: tuple[list[str], list[str]]


@pytest.fixture(scope="module")
def last_words(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Words]]:
    """By ending, of the ranks of one job."""
    home = tmp_path_factory.mktemp("last-words") / "home"
    job = {"WORLD_SIZE": str(len(_ENDINGS)), "ALLRANKS_RUN_ID": "crashing", "PYTHONFAULTHANDLER": ""}
    scenario.start_collector(home)
    try:
        with contextlib.ExitStack() as stack:
            programs = [
                stack.enter_context(
                    scenario.started(home, _CRASHING, ",".join(_ENDINGS), env={**job, "RANK": str(rank)})
                )
                for rank in range(len(_ENDINGS))
            ]
            ended = [program.wait() for program in programs]
            assert not [one.left for one in ended if one.left]
            # Of a rank that has just begun, the tee shows the last words after its end.
            seen = [(program.stdout.splitlines(), program.stderr.splitlines()) for program in programs]
        with scenario.stored(home) as stored:
            assert stored.runs() == ["crashing"]
            out, err = stored.lines("crashing"), stored.lines("crashing", "stderr")
        yield {
            ending: Words(
                ended[rank].exit_code,
                seen[rank],
                (out.get(rank, []), err.get(rank, [])),
            )
            for rank, ending in enumerate(_ENDINGS)
        }
    finally:
        scenario.end_collector(home)


@pytest.mark.parametrize(
    ("ending", "exit_code", "out", "err"),
    [
        ("segfault", -signal.SIGSEGV, [], ["Fatal Python error: Segmentation fault", " in step", " in <module>"]),
        (
            "terminate",
            -signal.SIGABRT,
            [],
            [
                "terminate called after throwing an instance of 'std::runtime_error'",
                "  what():  the loss is not finite",
                "Fatal Python error: Aborted",
            ],
        ),
        ("double free", -signal.SIGABRT, [], ["free(): double free detected", "Fatal Python error: Aborted"]),
        ("killed", -signal.SIGKILL, [*(f"rank 3 step {n}" for n in range(2000)), "no newline"], []),
        ("children", 1, ["the child"], ["a child has died"]),
    ],
    ids=_ENDINGS,
)
def test_a_rank_is_heard_to_its_last_word(
    last_words: dict[str, Words], ending: str, exit_code: int, out: list[str], err: list[str]
) -> None:
    words = last_words[ending]
    assert words.exit_code == exit_code
    assert words.stored == words.seen
    assert words.seen[0] == [f"rank {_ENDINGS.index(ending)} in C", *out]
    said = iter(words.seen[1])
    # In this order, whatever is between them.
    assert all(any(wanted in line for line in said) for wanted in err), words.seen[1]


_NUMBERED = """
import os, time
import allranks

run = allranks.init(project="boring")
for number in range(20_000):
    if number == 10_000:
        print(end="", flush=True)
        while not os.path.exists("go"):
            time.sleep(0.01)
    print(f"line {number} {'x' * 60}")
run.log({"i": 0})
"""


def _tees(home: Path) -> list[int]:
    return [pid for pid in processes.with_home(home) if "tee.program" in processes.command_line(pid)]


def test_a_tee_killed_while_it_is_held_up_loses_nothing_that_is_seen_and_that_is_said(home: Path) -> None:
    """It has shown all that it has read, and the pipe behind it is full, when it is killed."""
    scenario.start_collector(home)
    with scenario.started(home, _NUMBERED) as program:
        program.await_line("line 9999 ")
        (tee,) = _tees(home)
        os.kill(tee, signal.SIGSTOP)
        (program.directory / "go").touch()
        wait_until(lambda: "pipe" in processes.waits_in(program.pid), "the program waits for its tee")
        os.kill(tee, signal.SIGKILL)
        ended = program.wait()
    assert (ended.exit_code, ended.left) == (0, {})
    expected = [f"line {number} {'x' * 60}" for number in range(20_000)]
    assert ended.stdout.splitlines() == expected
    said = "allranks: what keeps the console was killed; another process does that now"
    assert ended.stderr.splitlines() == [said]
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        assert stored.values("i")
        # The line that it had begun to keep stays an open one.
        lines = stored.rows("SELECT text FROM lines WHERE stream = 1 ORDER BY time_ns, number")
        whole = set(expected)
        kept = [int(line.split()[1]) for (line,) in lines if line in whole]
        # What it had in its hands was seen and may not be kept: one gap, in what was printed before.
        missing = sorted(set(range(20_000)) - set(kept))
        assert kept == [number for number in range(20_000) if number not in missing]
        assert missing == list(range(min(missing, default=0), max(missing, default=-1) + 1))
        assert all(number < 10_000 for number in missing)
        assert len(missing) * len(expected[0]) <= 4 * 64 * 1024
        assert stored.lines(run, "stderr")[0] == [said]
