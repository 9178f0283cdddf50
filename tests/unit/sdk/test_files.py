"""A run's files in a training process: what it asks for arrives, whoever dies, and costs it next to nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.collector import clean_environment
from tests.support.file_receiver import FileReceiver
from tests.support.outboxes import kill_shippers_of, shippers_of
from tests.support.waiting import wait_until
from tests.unit.bus.conftest import free_tcp_address

from allranks import _warnings
from allranks._companions import Companion
from allranks._files import RunFiles
from allranks._place import RunPlace
from allranks_bus.files.outbox import START, USERS, find_outboxes, is_locked
from allranks_bus.wire import Up

_FINISH_S = 60.0


class Training:
    """A training process's place, with a collector that may listen there."""

    def __init__(self, folder: Path, destination: str | None = None) -> None:
        self.receiver = FileReceiver(free_tcp_address())
        self.folder = folder
        self.place = RunPlace(
            run="run-1",
            project="project",
            host="host-1",
            rank=3,
            world_size=8,
            launch="launch-1",
            writer=bytes(range(16)),
            role="rank",
            directory=folder / "runs" / "run-1",
            spool_root=folder / "spool",
            destination=destination or str(self.receiver.address),
            env=clean_environment(folder / "home"),
        )

    @property
    def outbox(self) -> Path | None:
        """The outbox, where there is one. `find_outboxes` is not for a process that uses it."""
        return next(self.place.spool_root.glob("outbox-*"), None)

    def files(self) -> RunFiles:
        return RunFiles(self.place)

    def write(self, name: str, content: bytes = b"x") -> Path:
        """A file in the run's directory."""
        path = self.place.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Training]:
    _warnings.forget()
    monkeypatch.chdir(tmp_path)
    made = Training(tmp_path)
    yield made
    for outbox in made.place.spool_root.glob("outbox-*"):
        kill_shippers_of(outbox)


def _tick_until(files: RunFiles, fact: Callable[[], bool], what: str) -> None:
    """As the publisher's thread does."""

    def look() -> bool:
        files.tick()
        return fact()

    wait_until(look, what, timeout_s=_FINISH_S)


# -- next to nothing -----------------------------------------------------------------------------------------------


def test_it_is_a_companion(training: Training) -> None:
    companion: Companion = training.files()
    companion.tick()
    assert companion.finish(0.0)


def test_a_run_without_files_leaves_no_trace(training: Training) -> None:
    files = training.files()
    files.tick()
    assert files.finish(time.monotonic() + _FINISH_S)
    files.leave()
    assert list(training.folder.iterdir()) == []


def test_a_directory_that_stays_empty_costs_no_process(training: Training) -> None:
    """And what was made for it goes with the run."""
    files = training.files()
    training.place.directory.mkdir(parents=True)
    files.open()
    assert training.outbox is not None
    files.tick()
    assert not (training.outbox / START).exists()
    began = time.monotonic()
    assert files.finish(began + _FINISH_S)
    assert time.monotonic() - began < _FINISH_S / 2
    assert training.outbox is None


def test_a_look_is_cheap_and_seldom(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    """One a second, however often it is asked to."""
    looks: list[object] = []
    scandir = os.scandir

    def counted(path: object) -> object:
        looks.append(path)
        return scandir(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", counted)
    files = training.files()
    for _ in range(1000):
        files.tick()
    assert looks == [training.place.directory]


# -- what arrives --------------------------------------------------------------------------------------------------


def test_what_is_in_the_directory_arrives_while_the_training_runs(training: Training) -> None:
    """Also where nobody has ever asked for the directory."""
    files = training.files()
    with training.receiver as receiver:
        training.write("checkpoints/a.ckpt", b"weights")
        _tick_until(files, lambda: receiver.content("checkpoints/a.ckpt") == b"weights", "it has arrived")
        training.write("b", b"more")
        _tick_until(files, lambda: receiver.content("b") == b"more", "it has arrived")
        assert files.finish(time.monotonic() + _FINISH_S)
    assert {offer.rank for offer in receiver.offers} == {None}


def test_finish_waits_until_all_is_stored(training: Training) -> None:
    files = training.files()
    with training.receiver as receiver:
        for number in range(20):
            training.write(f"f{number}", b"%d" % number)
        assert files.finish(time.monotonic() + _FINISH_S)
        assert len(receiver.names) == 20
        wait_until(lambda: training.outbox is None, "nothing is left of it")


def test_finish_waits_no_longer_than_it_may(training: Training, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody listens; what is left is known."""
    files = training.files()
    training.write("a")
    began = time.monotonic()
    assert not files.finish(began + 0.5)
    assert time.monotonic() - began < _FINISH_S / 2
    assert "not stored yet" in capsys.readouterr().err
    assert training.outbox is not None
    assert files.finish(time.monotonic() + _FINISH_S)


def test_finish_tells_that_something_could_not_be_stored(
    training: Training, capsys: pytest.CaptureFixture[str]
) -> None:
    files = training.files()
    training.write("a")
    with training.receiver as receiver:
        receiver.refuse("no space left", is_final=False)
        began = time.monotonic()
        assert not files.finish(began + _FINISH_S)
        assert time.monotonic() - began < _FINISH_S / 2
    assert "a cannot be stored at the moment, and is tried again: no space left" in capsys.readouterr().err


def test_a_program_that_just_ends_waits_for_nothing_and_all_arrives(training: Training) -> None:
    files = training.files()
    training.write("a", bytes(10_000_000))
    with training.receiver as receiver:
        files.leave()
        assert not receiver.names
        wait_until(lambda: receiver.names == {"a"}, "it has arrived", timeout_s=_FINISH_S)
        wait_until(lambda: training.outbox is None, "nothing is left of it")


def test_a_shipper_that_was_killed_is_started_again(training: Training) -> None:
    files = training.files()
    with training.receiver as receiver:
        training.write("a")
        _tick_until(files, lambda: receiver.names == {"a"}, "it has arrived")
        assert training.outbox is not None
        (pid,) = shippers_of(training.outbox)
        os.kill(pid, signal.SIGKILL)
        training.write("b")
        _tick_until(files, lambda: receiver.names == {"a", "b"}, "it has arrived")
        assert pid not in shippers_of(training.outbox)
        assert files.finish(time.monotonic() + _FINISH_S)


def test_a_shipper_that_is_killed_while_finish_waits_is_started_again(training: Training) -> None:
    files = training.files()
    training.write("a")

    def kill_once(message: Up) -> bool:
        if not killed:
            killed.append(True)
            assert training.outbox is not None
            kill_shippers_of(training.outbox)
        return False

    killed: list[bool] = []
    with training.receiver as receiver:
        receiver.answer = kill_once
        assert files.finish(time.monotonic() + _FINISH_S)
        assert receiver.names == {"a"}


def test_a_training_that_is_killed_right_after_the_write_is_covered(training: Training) -> None:
    """By what it has made before: whoever looks for orphans finds it."""
    code = (
        "import os, signal, sys; from pathlib import Path; from allranks._place import RunPlace\n"
        "from allranks._files import RunFiles\n"
        "run, root = Path(sys.argv[1]), Path(sys.argv[2]); run.mkdir(parents=True)\n"
        "RunFiles(RunPlace('run-1', 'p', 'h', 0, 1, 'l', bytes(16), 'rank', run, root, sys.argv[3], {})).open()\n"
        "(run / 'a').write_bytes(b'x'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    place = training.place
    arguments = [str(place.directory), str(place.spool_root), place.destination]
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    (found,) = find_outboxes(place.spool_root)
    assert (found.has_users, found.is_shipped) == (False, False)
    assert found.about is not None
    assert found.about.destination == place.destination


def test_ranks_of_one_host_share_a_shipper(training: Training) -> None:
    """Each is a user of its own: here two in one process, which take it as one."""
    ranks = [RunFiles(replace(training.place, rank=rank, writer=bytes([rank]) * 16)) for rank in range(2)]
    with training.receiver as receiver:
        training.write("a")
        for files in ranks:
            files.tick()
        _tick_until(ranks[0], lambda: receiver.names == {"a"}, "it has arrived")
        assert training.outbox is not None
        assert len(shippers_of(training.outbox)) == 1
        assert ranks[0].finish(time.monotonic() + _FINISH_S)
        training.write("b")
        assert ranks[1].finish(time.monotonic() + _FINISH_S)
        assert receiver.names == {"a", "b"}


def test_an_outbox_that_was_removed_under_its_user_is_made_anew(training: Training) -> None:
    """Some part of the program has read all files of the home, and so ended the lock."""
    Path("saved").write_bytes(b"x")
    files = training.files()
    with training.receiver as receiver:
        files.save("saved")
        assert training.outbox is not None
        (training.outbox / USERS).read_bytes()
        _tick_until(files, lambda: receiver.names == {"saved"}, "it has arrived")
        wait_until(lambda: training.outbox is None, "the outbox is gone")
        training.write("more")
        Path("saved").write_bytes(b"xy")
        assert files.finish(time.monotonic() + _FINISH_S)
    assert receiver.names == {"saved", "more"}
    assert receiver.content("saved") == b"xy"


def test_problems_are_told_once_by_the_process_that_they_concern(
    training: Training, capsys: pytest.CaptureFixture[str]
) -> None:
    ranks = [RunFiles(replace(training.place, rank=rank, writer=bytes([rank]) * 16)) for rank in range(2)]
    with training.receiver:
        training.write("a")
        (training.place.directory / "link").symlink_to("/etc/passwd")
        for files in ranks:
            files.tick()
        for files in ranks:
            assert files.finish(time.monotonic() + _FINISH_S)
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "link leads out" in told


# -- save ----------------------------------------------------------------------------------------------------------


def test_saved_files_arrive_under_their_names(training: Training, tmp_path: Path) -> None:
    for name in ("out/a.pt", "out/deep/b.pt", "notes.txt", "data/c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    training.write("sub/mine", b"mine")
    files = training.files()
    with training.receiver as receiver:
        assert files.save("notes.txt") == ["notes.txt"]
        assert sorted(files.save("out/**")) == ["out/a.pt", "out/deep/b.pt"]
        assert files.save(tmp_path / "out" / "deep" / "*") == ["b.pt"]
        assert files.save(tmp_path / "data/c", base_path=tmp_path) == ["data/c"]
        assert files.save(training.place.directory / "sub" / "*", policy="end") == ["sub/mine"]
        assert files.finish(time.monotonic() + _FINISH_S)
    assert receiver.names == {"notes.txt", "out/a.pt", "out/deep/b.pt", "b.pt", "data/c", "sub/mine"}
    assert receiver.content("out/deep/b.pt") == receiver.content("b.pt") == b"out/deep/b.pt"
    assert {offer.rank for offer in receiver.offers if offer.name != "sub/mine"} == {3}


def test_a_folder_with_wildcards_in_its_name_is_meant_as_it_is(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = training.folder / "lr=[0.1] *"
    folder.mkdir()
    (folder / "a").write_bytes(b"x")
    monkeypatch.chdir(folder)
    files = training.files()
    assert files.save("*") == ["a"]
    assert files.save("a", base_path=folder) == ["a"]
    files.leave()


@pytest.mark.parametrize(
    ("pattern", "base_path", "policy", "told"),
    [
        ("../a", None, "live", "`..`"),
        ("a/../../b", None, "live", "`..`"),
        ("a", None, "always", "the policy is one of live, now, end, not 'always'"),
        ("/etc/passwd", "/usr", "live", "it does not lie in /usr"),
        ("nothing-*", None, "live", "there is no such file"),
        (".", None, "live", "it is a folder"),
        ("a\0b", None, "live", "what no path has"),
        ("/dev/null", None, "live", "it is no regular file"),
        ("link", None, "live", "leads out of"),
        (None, None, "live", "save(None): a path or a pattern is one text"),
        (["a"], None, "live", "save(['a']): a path or a pattern is one text"),
        ("a", 5, "live", "is one text"),
    ],
)
def test_what_cannot_be_saved_gives_one_warning(
    training: Training,
    capsys: pytest.CaptureFixture[str],
    pattern: str,
    base_path: str | None,
    policy: str,
    told: str,
) -> None:
    """Never an exception."""
    files = training.files()
    Path("link").symlink_to("/etc/passwd")
    for _ in range(2):
        assert files.save(pattern, base_path, policy) == []
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
    files.leave()


def test_what_is_asked_for_in_every_step_is_noted_once(training: Training) -> None:
    Path("a").write_bytes(b"x")
    files = training.files()
    for _ in range(1000):
        assert files.save("a") == ["a"]
    assert training.outbox is not None
    assert (training.outbox / "wanted.jsonl").stat().st_size < 2000
    files.leave()


def test_a_file_that_comes_later_arrives_too(training: Training) -> None:
    files = training.files()
    with training.receiver as receiver:
        assert files.save("*.pt") == []
        Path("late.pt").write_bytes(b"x")
        assert files.finish(time.monotonic() + _FINISH_S)
        assert receiver.names == {"late.pt"}


def test_after_the_end_nothing_is_saved(training: Training, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a").write_bytes(b"x")
    files = training.files()
    files.leave()
    assert files.save("a") == []
    assert "no more files" in capsys.readouterr().err
    files.open()
    files.tick()
    assert training.outbox is None


# -- odd places ----------------------------------------------------------------------------------------------------


def test_offline_files_are_noted_and_not_sent(tmp_path: Path) -> None:
    training = Training(tmp_path, "offline")
    files = training.files()
    training.write("a")
    files.tick()
    assert files.finish(time.monotonic() + _FINISH_S)
    assert training.outbox is not None
    assert not (training.outbox / START).exists()
    files.leave()
    assert training.outbox is not None


def test_a_spool_that_cannot_be_written_stops_no_training(
    training: Training, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "spool").write_bytes(b"no folder")
    files = training.files()
    training.write("a")
    for _ in range(3):
        files.open()
        files.tick()
        files.save("a")
    assert not files.finish(time.monotonic() + 0.5)
    assert capsys.readouterr().err.count("cannot be sent") == 1


def test_a_shipper_that_cannot_be_started_stops_no_training(
    training: Training, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", "/nothing")
    files = training.files()
    training.write("a")
    files.tick()
    files.leave()
    assert "cannot be sent" in capsys.readouterr().err
    assert training.outbox is not None


def test_a_forked_child_may_save_and_does_not_disturb_its_parent(training: Training) -> None:
    files = training.files()
    Path("of-child").write_bytes(b"x")
    Path("of-parent").write_bytes(b"x")
    with training.receiver as receiver:
        assert files.save("of-parent") == ["of-parent"]
        pid = os.fork()
        if not pid:
            files.abandon()
            own = RunFiles(replace(training.place, writer=b"c" * 16, role="child"))
            is_right = own.save("of-child") == ["of-child"] and files.save("of-parent") == []
            own.leave()
            os._exit(0 if is_right else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert training.outbox is not None
        assert files.finish(time.monotonic() + _FINISH_S)
        wait_until(lambda: receiver.names == {"of-child", "of-parent"}, "both have arrived", timeout_s=_FINISH_S)


def test_a_child_that_is_forked_while_a_thread_looks_does_not_wait_for_it(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no such thread in the child."""
    looking, go_on = threading.Event(), threading.Event()

    def slow(_: object) -> object:
        looking.set()
        go_on.wait(_FINISH_S)
        raise FileNotFoundError

    monkeypatch.setattr(os, "scandir", slow)
    files = training.files()
    thread = threading.Thread(target=files.tick)
    thread.start()
    looking.wait(_FINISH_S)
    pid = os.fork()
    if not pid:
        files.abandon()
        files.tick()
        files.leave()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    go_on.set()
    thread.join()


def test_an_end_while_the_publisher_is_at_it_waits_for_neither(training: Training) -> None:
    """The thread starts the process that ships: nothing more is to be done."""
    files = training.files()
    training.write("a")
    with training.receiver as receiver:
        thread = threading.Thread(target=files.tick)
        thread.start()
        files.leave()
        thread.join()
        wait_until(lambda: receiver.names == {"a"}, "it has arrived", timeout_s=_FINISH_S)


def test_the_use_ends_with_the_run(training: Training) -> None:
    """In a process that goes on, a notebook say."""
    files = training.files()
    training.write("a")
    with training.receiver:
        files.tick()
        assert training.outbox is not None
        users = training.outbox / USERS
        files.finish(time.monotonic() + _FINISH_S)
        wait_until(lambda: not is_locked(users), "it is over")
