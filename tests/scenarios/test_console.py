"""Every line is stored under its rank, and seen once, as before."""

from __future__ import annotations

import sys
from itertools import chain
from pathlib import Path

import pytest
from tests.support import scenario
from tests.support.collector import clean_environment
from tests.support.terminals import in_terminal

# From Python 3.12 on a fork warns of threads, as the publisher is one.
_QUIET = {"PYTHONWARNINGS": "ignore::DeprecationWarning"}


def test_what_forked_children_print_is_stored_under_their_rank(home: Path) -> None:
    ended = scenario.run(home, "forked_children.py", "os", env=_QUIET)
    ended.must_be_well()
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        assert sorted(stored.lines(run)[0]) == sorted(ended.stdout.splitlines())
        assert sorted(stored.lines(run, "stderr")[0]) == sorted(ended.stderr.splitlines())
        assert len(stored.lines(run)[0]) == 40


_RANKS = """
import multiprocessing, os, subprocess, sys
import allranks

COUNT = 3

def say(line):
    # In one write, also where nothing is buffered: lines of several processes must not mix.
    print(f"{line}\\n", end="", flush=True)

def train(rank):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(COUNT), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    say(f"rank {rank} before init")
    run = allranks.init(project="boring")
    assert (run.rank, run.world_size) == (rank, COUNT)
    for line in range(20):
        say(f"rank {rank} line {line}")
        os.system(f"echo rank {rank} shell {line} >&2")
    run.finish()

def main():
    if sys.argv[1:] and sys.argv[1].isdecimal():
        return train(int(sys.argv[1]))
    allranks.init(project="boring")
    say("parent")
    if sys.argv[1] == "spawn":
        context = multiprocessing.get_context("spawn")
        ranks = [context.Process(target=train, args=(rank,)) for rank in range(COUNT)]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join()
    else:
        ranks = [subprocess.Popen([sys.executable, __file__, str(rank)]) for rank in range(COUNT)]
        for rank in ranks:
            assert rank.wait() == 0
    say("parent again")

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("method", ["spawn", "subprocess"])
def test_ranks_that_print_into_their_starters_console_are_told_apart(home: Path, method: str) -> None:
    ended = scenario.run(home, _RANKS, method)
    ended.must_be_well()
    ranks = range(3)
    before = [f"rank {rank} before init" for rank in ranks]
    out = {rank: [f"rank {rank} line {line}" for line in range(20)] for rank in ranks}
    err = {rank: [f"rank {rank} shell {line}" for line in range(20)] for rank in ranks}
    assert sorted(ended.stdout.splitlines()) == sorted(["parent", "parent again", *before, *chain(*out.values())])
    assert sorted(ended.stderr.splitlines()) == sorted(chain(*err.values()))
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        lines = stored.lines(run)
        # The one that started them is rank 0, and so is the first of them.
        assert sorted(lines.pop(0)) == sorted(["parent", "parent again", *before, *out.pop(0)])
        assert lines == out
        told = stored.lines(run, "stderr")
        assert sorted(told.pop(0)) == sorted(err.pop(0))
        assert told == err


_OWN_RUN = """
import os
import allranks

run = allranks.init(project="boring", name="of the parent")
print("parent", flush=True)
if not os.fork():
    print("child of the run", flush=True)
    own = allranks.init(project="boring", name="of the child")
    assert own.id != run.id
    print("child in its own run", flush=True)
    own.finish()
    print("child after its run", flush=True)
    os._exit(0)
os.wait()
print("parent again", flush=True)
"""


def test_a_child_with_a_run_of_its_own_has_its_lines_there_and_nowhere_else(home: Path) -> None:
    scenario.start_collector(home)  # else that is done by a child which os.wait() may tell of
    ended = scenario.run(home, _OWN_RUN, env=_QUIET)
    ended.must_be_well()
    words = ["parent", "child of the run", "child in its own run", "child after its run", "parent again"]
    assert ended.stdout.splitlines() == words
    with scenario.stored(home) as stored:
        found = {name: stored.lines(run) for run, name in stored.rows("SELECT id, name FROM runs")}
        assert found == {"of the child": {0: [words.pop(2)]}, "of the parent": {0: words}}


_TERMINAL = """
import os, shutil, sys, time
import allranks

run = allranks.init(project="boring")
print(sys.stdout.isatty(), os.isatty(2), os.get_terminal_size(1).columns)
sys.stderr.write("\\rone\\rtwo\\n")
while os.get_terminal_size(2).columns != 99:
    time.sleep(0.01)
print("resized")
run.finish()
print(os.get_terminal_size(1).columns)
"""


def test_a_terminal_stays_one_and_shows_the_same_bytes(home: Path) -> None:
    directory = home.parent / "terminal"
    directory.mkdir()
    (directory / "train.py").write_text(_TERMINAL)
    command = [sys.executable, "train.py"]
    with in_terminal(command, env=clean_environment(home), cwd=directory, size=(30, 77)) as terminal:
        terminal.await_shown(b"two\r\n")
        terminal.resize(30, 99)
        assert terminal.await_end() == 0
    # In the order in which it was printed, to whichever stream.
    assert terminal.shown == b"True True 77\r\n\rone\rtwo\r\nresized\r\n99\r\n"
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        assert stored.lines(run) == {0: ["True True 77", "two", "resized"]}


_REDRAWN = """
import os, signal, time
import allranks

allranks.init(project="boring")
told = []
signal.signal(signal.SIGWINCH, lambda *_: told.append(os.get_terminal_size(1).columns))
print("ready", flush=True)
while told[-1:] != [99]:
    time.sleep(0.01)
"""


def test_who_draws_anew_when_its_terminal_is_resized_sees_the_new_size(home: Path) -> None:
    directory = home.parent / "terminal"
    directory.mkdir()
    (directory / "train.py").write_text(_REDRAWN)
    command = [sys.executable, "train.py"]
    with in_terminal(command, env=clean_environment(home), cwd=directory, takes_keys=True) as terminal:
        terminal.await_shown(b"ready")
        terminal.resize(30, 99)
        assert terminal.await_end() == 0
    with scenario.stored(home) as stored:
        assert stored.runs()
