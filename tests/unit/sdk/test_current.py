"""The current run through copy, pickle, fork, and the ends of multiprocessing's children."""

from __future__ import annotations

import argparse
import copy
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.spools import Event, events_of, logged, of_kind, spooled

import allranks
from allranks import _current, _loading, _part
from allranks._publisher import Publisher
from allranks._run import Run
from allranks_bus.events import Kind
from allranks_bus.spool_directory import find_spools


def offline(**arguments: Any) -> Run:
    return allranks.init(project="p", mode="offline", **arguments)


def openings(home: Path, role: str) -> list[dict[str, Any]]:
    """The identities of the writers of this role."""
    return [event[2] for event in of_kind(spooled(home / "spool"), Kind.OPEN) if event[2]["role"] == role]


# -- before and after init ------------------------------------------------------------------------------------------


def test_a_run_is_started_from_init_to_finish(sdk_home: Path) -> None:
    run = allranks.run
    assert (run.role, run.is_started) == ("rank", False)
    offline()
    assert (run.role, run.is_started) == ("rank", True)
    run.finish()
    assert not run.is_started


def test_files_before_init_are_not_kept_and_that_is_said(sdk_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sdk_home / "a.txt").write_text("a")
    assert allranks.save(str(sdk_home / "*.txt")) == []
    assert "before init()" in capsys.readouterr().err
    assert not list(find_spools(sdk_home / "spool"))


def test_an_alert_is_a_record_and_an_unknown_level_is_said(
    sdk_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = offline()
    run.alert("NaN", "in layer 3", "error")
    allranks.alert("odd", level="LOUD")
    assert [alert[2] for alert in of_kind(spooled(sdk_home / "spool"), Kind.ALERT)] == [
        {"title": "NaN", "text": "in layer 3", "level": "ERROR"},
        {"title": "odd", "text": "", "level": "INFO"},
    ]
    assert "'LOUD'" in capsys.readouterr().err


def test_an_alert_that_is_to_wait_is_kept_once_by_its_title(sdk_home: Path) -> None:
    run = offline()
    for _ in range(3):
        run.alert("lr is odd", wait=600)
        allranks.alert("each time")
    run.alert("other", wait=600)
    titles = [alert[2]["title"] for alert in of_kind(spooled(sdk_home / "spool"), Kind.ALERT)]
    assert titles == ["lr is odd", "each time", "each time", "each time", "other"]


# -- copies and pickles in one process ------------------------------------------------------------------------------


def pickled(run: Run) -> Run:
    again: Run = pickle.loads(pickle.dumps(run))
    return again


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, pickled])
def test_a_copy_of_a_run_is_the_run(sdk_home: Path, again: Callable[[Run], Run]) -> None:
    run = offline()
    assert again(run) is run


def test_a_namespace_that_holds_a_run_and_its_configuration_can_be_copied(sdk_home: Path) -> None:
    run = offline(config={"lr": 0.1})
    args = copy.deepcopy(argparse.Namespace(run=run, config=run.config))
    assert args.run is run
    args.config.lr = 2
    assert run.config.lr == 0.1


def test_a_finished_run_pickles_and_stays_finished(sdk_home: Path) -> None:
    run = offline(config={"lr": 0.1})
    run.finish()
    again = pickled(run)
    assert again.is_finished
    assert again.config["lr"] == 0.1


# -- pickles in another process -------------------------------------------------------------------------------------

UNPICKLE = """
import pickle, sys
with open(sys.argv[1], "rb") as file:
    run = pickle.load(file)
"""


def unpickle(run: Run, home: Path, then: str, **env: str) -> None:
    """Another process that has imported nothing of allranks unpickles `run`, and does `then` with it."""
    path = home / "run.pickle"
    path.write_bytes(pickle.dumps(run))
    kept = {name: value for name, value in os.environ.items() if name != "ALLRANKS_PARENT_RUN"}
    subprocess.run([sys.executable, "-c", UNPICKLE + then, str(path)], check=True, timeout=60, env={**kept, **env})


def test_another_process_logs_into_the_run_as_its_child(sdk_home: Path) -> None:
    run = offline(name="n", group="g", config={"lr": 0.1})
    unpickle(
        run,
        sdk_home,
        "assert run.role == 'child' and run.is_started and run.config.lr == run.config['lr'] == 0.1\n"
        "run.log({'a': 1.0})\n"
        "import allranks\n"
        "assert allranks.run is run\n"
        "allranks.log({'a': 2.0})\n",
    )
    (child,) = openings(sdk_home, "child")
    (mine,) = openings(sdk_home, "rank")
    for name in ("run", "launch", "project", "group", "name", "rank", "world_size", "destination"):
        assert child[name] == mine[name], name
    assert child["parent"].hex() == Path(mine["spool"]).name
    assert child["pid"] != mine["pid"]
    assert logged(spooled(sdk_home / "spool")) == [(0, {"a": 1.0}), (1, {"a": 2.0})]


def test_another_process_that_logs_nothing_leaves_nothing(sdk_home: Path) -> None:
    run = offline(config={"lr": 0.1})
    unpickle(run, sdk_home, "assert run.dir and run.config.lr == 0.1")
    assert openings(sdk_home, "child") == []


def test_another_process_that_has_a_place_is_a_rank_of_the_run(sdk_home: Path) -> None:
    run = offline()
    unpickle(run, sdk_home, "run.log({'a': 1.0})", RANK="1", WORLD_SIZE="2")
    first, second = openings(sdk_home, "rank")
    assert {first["rank"], second["rank"]} == {0, 1}
    assert (first["run"], first["launch"]) == (second["run"], second["launch"])


def test_another_process_at_the_same_place_is_a_child_of_the_rank(
    sdk_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    run = offline()
    unpickle(run, sdk_home, "run.log({'a': 1.0})")
    (child,) = openings(sdk_home, "child")
    assert (child["rank"], child["world_size"], child["launch"]) == (1, 2, run.identity.launch)


# -- forks ----------------------------------------------------------------------------------------------------------


def forked(work: Callable[[], object]) -> None:
    """Does `work` in a forked child, which ends by os._exit; fails where it raises, or takes too long."""
    pid = os.fork()
    if not pid:
        signal.alarm(30)
        try:
            work()
        except BaseException as error:
            os.write(2, f"in the child: {error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_that_calls_init_begins_a_run_of_its_own_beside_the_inherited_one(sdk_home: Path) -> None:
    inherited = offline(config={"lr": 0.1})

    def work() -> None:
        mine = offline(config={"lr": 0.2})
        assert mine is allranks.run is not inherited
        assert (mine.config.lr, inherited.config.lr) == (0.2, 0.1)
        mine.log({"mine": 1.0})
        inherited.log({"theirs": 1.0})

    forked(work)
    by_run = {found[0][2]["run"]: logged(found) for found in map(events_of, find_spools(sdk_home / "spool"))}
    assert len(by_run) == 2
    children = [found for found in map(events_of, find_spools(sdk_home / "spool")) if logged(found)]
    told = {(found[0][2]["run"] == inherited.id, found[0][2]["role"]): logged(found)[0][1] for found in children}
    assert told == {(True, "child"): {"theirs": 1.0}, (False, "rank"): {"mine": 1.0}}


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_of_a_finished_run_is_told_so(sdk_home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = offline()
    run.finish()
    forked(lambda: run.log({"a": 1.0}))
    assert "has ended" in capfd.readouterr().err
    assert openings(sdk_home, "child") == []


# -- ends -----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_run_that_cannot_be_ended_does_not_keep_others_from_their_end(
    sdk_home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    inherited = offline()

    def work() -> None:
        inherited.log({"theirs": 1.0})
        mine = offline()
        log = inherited._log  # pyright: ignore[reportPrivateUsage]
        monkeypatch.setattr(log, "report_drops", 3)
        _current._at_exit()  # pyright: ignore[reportPrivateUsage]
        assert mine.is_finished

    forked(work)
    assert f"run {inherited.id} could not be ended: TypeError" in capfd.readouterr().err


# -- the ends of multiprocessing's children -------------------------------------------------------------------------

CHILD = """
import multiprocessing, os, sys
import allranks

def fall(run):
    run.log({{"a": 1.0}})
    {ending}

if __name__ == "__main__":
    run = allranks.init(project="p", mode="offline")
    child = multiprocessing.get_context("{method}").Process(target=fall, args=(run,))
    child.start()
    child.join()
    sys.exit(child.exitcode)
"""


def end_of_child(home: Path, method: str, ending: str) -> tuple[int, Event]:
    """The exit code of a child that ends so, and its last record."""
    program = home / "train.py"
    program.write_text(CHILD.format(method=method, ending=ending))
    done = subprocess.run([sys.executable, "-W", "ignore", str(program)], timeout=60, stderr=subprocess.DEVNULL)
    (child,) = (found for found in map(events_of, find_spools(home / "spool")) if found[0][2]["role"] == "child")
    return done.returncode, child[-1]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_an_exception_that_ends_a_child_is_recorded(sdk_home: Path, method: str) -> None:
    code, last = end_of_child(sdk_home, method, "raise ValueError('the loss is a teapot')")
    assert code == 1
    assert last[0] == Kind.CLOSE
    assert last[2]["exit_code"] == 1
    assert last[2]["exception"]["type"] == "ValueError"
    assert last[2]["exception"]["message"] == "the loss is a teapot"
    assert "in fall" in last[2]["exception"]["traceback"]


@pytest.mark.parametrize(
    ("ending", "code"), [("return", 0), ("sys.exit()", 0), ("sys.exit(3)", 3), ("sys.exit('no data')", 1)]
)
def test_the_exit_code_of_a_child_is_recorded(sdk_home: Path, ending: str, code: int) -> None:
    exit_code, last = end_of_child(sdk_home, "fork", ending)
    assert exit_code == code
    assert last[0] == Kind.CLOSE
    assert last[2] == {"exit_code": code}


def test_what_torch_makes_of_a_childs_exception_is_seen_through(sdk_home: Path) -> None:
    """It puts the traceback into a queue, and calls sys.exit(1)."""
    ending = "try: raise ValueError('the loss')\n    except Exception: sys.exit(1)"
    code, last = end_of_child(sdk_home, "spawn", ending)
    assert code == 1
    assert last[2]["exception"]["message"] == "the loss"


def test_a_child_that_is_ended_by_os_exit_keeps_what_it_logged(sdk_home: Path) -> None:
    code, last = end_of_child(sdk_home, "fork", "os._exit(0)")
    assert code == 0
    assert last[0] == Kind.METRICS


# -- interrupts -----------------------------------------------------------------------------------------------------


def interrupt_once(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
    """Has the first call of this function interrupted before it does anything."""
    method = getattr(owner, name)

    def interrupted(*arguments: Any) -> Any:
        monkeypatch.setattr(owner, name, method)
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, interrupted)


@pytest.mark.parametrize(
    "function", [(_part, "open_log"), (Publisher, "start"), (Run, "export")], ids=lambda pair: pair[1]
)
def test_init_after_one_that_was_interrupted_begins_the_run(
    sdk_home: Path, monkeypatch: pytest.MonkeyPatch, function: tuple[object, str]
) -> None:
    interrupt_once(monkeypatch, *function)
    with pytest.raises(KeyboardInterrupt):
        offline(config={"lr": 1})
    run = offline(config={"lr": 2})
    assert run.is_started
    assert "allranks-publisher" in {thread.name for thread in threading.enumerate()}
    run.log({"a": 1.0})
    run.finish()
    assert len(list(find_spools(sdk_home / "spool"))) == 1
    found = spooled(sdk_home / "spool")
    assert logged(found) == [(0, {"a": 1.0})]
    assert of_kind(found, Kind.CONFIG)[-1][2] == {"lr": 2}
    assert found[-1][0] == Kind.CLOSE


def test_a_finish_that_was_interrupted_is_gone_on_with(
    sdk_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = offline()
    run.log({"a": 1.0})
    interrupt_once(monkeypatch, Publisher, "finish")
    with pytest.raises(KeyboardInterrupt):
        run.finish()
    run.finish()
    found = spooled(sdk_home / "spool")
    assert len(of_kind(found, Kind.CLOSE)) == 1
    assert found[-1][0] == Kind.CLOSE
    assert "dropped" not in capsys.readouterr().err
    run.finish()
    assert "finish() was called again" in capsys.readouterr().err


# Of the interpreter's memory of a Ctrl-C see _exits.py.
FORGETFUL = """
import collections, sys
import allranks
allranks.init(mode="offline")
hook = sys.excepthook
sys.excepthook = lambda *told: (collections.namedtuple("Any", "thing"), hook(*told))
raise KeyboardInterrupt
"""


def test_a_program_that_nobody_saved_from_a_ctrl_c_ends_by_it(sdk_home: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", FORGETFUL], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == -signal.SIGINT, ended.stderr
    assert "KeyboardInterrupt" in ended.stderr


# The first Ctrl-C comes while the end waits for a collector that is not there.
IMPATIENT = """
import os, signal, threading
import allranks
allranks.init(url="tcp://127.0.0.1:9").log({"a": 1.0})
signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
signal.setitimer(signal.ITIMER_REAL, 0.5)
"""


def test_a_ctrl_c_at_the_end_of_the_program_ends_the_waiting(sdk_home: Path) -> None:
    begun = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", IMPATIENT], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0
    assert "Traceback" not in ended.stderr
    assert ended.stderr.count("allranks sync") == 1
    assert time.monotonic() - begun < 5.0
    assert logged(spooled(sdk_home / "spool")) == [(0, {"a": 1.0})]


# -- odd beginnings -------------------------------------------------------------------------------------------------


def test_threads_that_call_init_at_once_get_one_run(sdk_home: Path) -> None:
    threads = 8
    at_once, runs = threading.Barrier(threads), list[Run]()

    def begin() -> None:
        at_once.wait(60)
        runs.append(allranks.run)
        runs.append(offline())

    begun = [threading.Thread(target=begin) for _ in range(threads)]
    for thread in begun:
        thread.start()
    for thread in begun:
        thread.join(60)
    assert len(runs) == 2 * threads
    assert len(set(map(id, runs))) == 1
    assert len(list(find_spools(sdk_home / "spool"))) == 1


CLOSED = """
import os
import allranks
run = allranks.init(mode="offline")
for step in range(100):
    run.log({"a": 1.0}, step)
    for fd in (1, 2):
        os.write(fd, b"from C")
"""


def test_a_program_whose_streams_are_closed_writes_into_no_file_of_ours(sdk_home: Path) -> None:
    command = ["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, CLOSED]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0
    assert logged(spooled(sdk_home / "spool")) == [(step, {"a": 1.0}) for step in range(100)]


def test_a_signal_handler_that_logs_in_the_middle_of_init_raises_nothing(
    sdk_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load = _loading.load

    def interrupted(name: str) -> Any:
        monkeypatch.setattr(_loading, "load", load)
        allranks.log({"last": 1.0})
        allranks.alert("the job ends")
        assert allranks.save("*.txt") == []
        return load(name)

    monkeypatch.setattr(_loading, "load", interrupted)
    run = offline()
    run.log({"a": 1.0})
    assert capsys.readouterr().err.count("in the middle of init()") == 1
    assert logged(spooled(sdk_home / "spool")) == [(0, {"a": 1.0})]
