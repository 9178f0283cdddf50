"""Outboxes: who uses them, who ships them, and what is written in them, whoever dies when."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from tests.support.outboxes import Box, make_box
from tests.support.waiting import wait_until

from allranks_bus.files import outbox
from allranks_bus.files.outbox import USERS, WANTED, Lines, append_line, find_outboxes, is_held, is_locked
from allranks_bus.spool_directory import LOCK, find_spools, take_lock


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return make_box(tmp_path, "tcp://127.0.0.1:5571")


def _in_child(action: Callable[[], object]) -> object:
    """What `action` gives in a forked child, as JSON."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(write, json.dumps(action()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as told:
        gave = json.load(told)
    os.waitpid(pid, 0)
    return gave


# -- where it lies -------------------------------------------------------------------------------------------------


def test_all_processes_of_a_run_find_the_same_outbox_and_no_others_do(tmp_path: Path) -> None:
    """Whichever launch they are of."""
    one = make_box(tmp_path, "offline")
    again = outbox.About(**{**one.about.__dict__, "launch": "launch-2", "host": "renamed"})
    assert outbox.outbox_path(one.root, again) == one.directory
    others = [
        make_box(tmp_path, "tcp://h:1"),
        make_box(tmp_path, "offline", run="run-2"),
        make_box(tmp_path / "b", "offline"),
    ]
    assert len({box.directory.name for box in (one, *others)}) == 4


def test_an_outbox_is_no_spool(box: Box) -> None:
    box.make()
    assert list(find_spools(box.root)) == []
    assert [found.directory for found in find_outboxes(box.root)] == [box.directory]


def test_an_outbox_is_private(box: Box) -> None:
    box.make()
    assert box.directory.stat().st_mode & 0o077 == 0


def test_an_outbox_behind_a_link_is_left_alone(box: Box, tmp_path: Path) -> None:
    box.make()
    moved = box.directory.rename(tmp_path / "elsewhere")
    box.directory.symlink_to(moved)
    assert list(find_outboxes(box.root)) == []


# -- who uses it ---------------------------------------------------------------------------------------------------


def test_a_found_outbox_tells_whose_it_is_and_who_is_at_it(box: Box) -> None:
    with box.user():
        (found,) = find_outboxes(box.root)
        assert (found.about, found.has_users, found.is_shipped) == (box.about, True, False)
    lock = take_lock(box.directory)
    # Asked by a child: a process does not see its own locks.
    assert _in_child(lambda: [(f.has_users, f.is_shipped) for f in find_outboxes(box.root)]) == [[False, True]]
    os.close(lock)


def test_a_use_ends_with_its_process_however_that_ends(box: Box) -> None:
    with box.user():
        assert is_locked(box.directory / USERS)
    wait_until(lambda: not is_locked(box.directory / USERS), "its lock is gone")


def test_users_of_one_outbox_do_not_stand_in_each_others_way(box: Box) -> None:
    with box.user() as first, box.user() as second:
        users = os.open(box.directory / USERS, os.O_RDWR)
        assert is_held(users)
        assert is_held(users, but=first)
        assert is_held(users, but=second)
    os.close(users)


def test_one_user_is_nobody_else(box: Box) -> None:
    with box.user() as pid:
        users = os.open(box.directory / USERS, os.O_RDWR)
        assert not is_held(users, but=pid)
    os.close(users)


def test_a_process_that_uses_it_twice_uses_it_until_it_has_left_twice(box: Box) -> None:
    """The lock would be gone with the first of two descriptors."""
    outbox.join(box.directory, box.about)
    outbox.join(box.directory, box.about)
    outbox.leave(box.directory)
    assert _in_child(lambda: is_locked(box.directory / USERS)) is True
    outbox.leave(box.directory)
    assert _in_child(lambda: is_locked(box.directory / USERS)) is False


def test_a_process_whose_outbox_was_removed_under_it_gets_a_new_one(box: Box) -> None:
    outbox.join(box.directory, box.about)
    shutil.rmtree(box.directory)
    outbox.join(box.directory, box.about)
    assert _in_child(lambda: is_locked(box.directory / USERS)) is True
    outbox.leave(box.directory)
    assert _in_child(lambda: is_locked(box.directory / USERS)) is True
    outbox.leave(box.directory)
    assert _in_child(lambda: is_locked(box.directory / USERS)) is False


def test_a_forked_child_neither_uses_it_nor_ends_its_parents_use(box: Box) -> None:
    outbox.join(box.directory, box.about)
    _in_child(partial(outbox.abandon, box.directory))
    assert _in_child(lambda: is_locked(box.directory / USERS)) is True
    # The child lives, and the parent leaves.
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    outbox.leave(box.directory)
    assert not is_locked(box.directory / USERS)
    os.close(write)
    os.waitpid(pid, 0)
    os.close(read)


def test_a_forked_child_may_use_it_itself(box: Box) -> None:
    """Until it has left, however long its parent has."""
    outbox.join(box.directory, box.about)
    leave, left = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        outbox.abandon(box.directory)
        outbox.join(box.directory, box.about)
        os.write(left[1], b"x")
        os.close(leave[1])
        os.read(leave[0], 1)
        os._exit(0)
    os.read(left[0], 1)
    outbox.leave(box.directory)
    assert is_locked(box.directory / USERS)
    os.close(leave[1])
    os.waitpid(pid, 0)
    assert not is_locked(box.directory / USERS)
    for fd in (leave[0], *left):
        os.close(fd)


# -- how it goes ---------------------------------------------------------------------------------------------------


def test_an_outbox_that_is_used_is_not_removed(box: Box) -> None:
    with box.user():
        assert not outbox.remove(box.directory)
        assert (box.directory / "about.json").exists()
    wait_until(lambda: not is_locked(box.directory / USERS), "its lock is gone")
    assert outbox.remove(box.directory)
    assert not box.directory.exists()


def test_who_comes_while_it_is_removed_gets_a_new_one(box: Box) -> None:
    """Again and again: no use may end up in an outbox that is gone."""
    code = (
        "import sys, time; from pathlib import Path; from allranks_bus.files import outbox\n"
        "while True: outbox.remove(Path(sys.argv[1])); time.sleep(0.0005)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(box.directory)]) as remover:
        try:
            for _ in range(50):
                outbox.join(box.directory, box.about)
                append_line(box.directory / WANTED, {"a": 1})
                assert outbox.read_about(box.directory) == box.about
                outbox.leave(box.directory)
                wait_until(lambda: not box.directory.exists(), "it is removed")
        finally:
            remover.kill()


def test_an_outbox_in_which_nobody_wanted_anything_goes_with_its_last_user(box: Box) -> None:
    box.make()
    outbox.remove_unused(box.directory)
    assert not box.directory.exists()


@pytest.mark.parametrize("reason", ["wanted", "user", "shipper"])
def test_an_outbox_that_somebody_needs_stays(box: Box, reason: str) -> None:
    box.make()
    if reason == "wanted":
        append_line(box.directory / WANTED, {"a": 1})
        outbox.remove_unused(box.directory)
    elif reason == "user":
        with box.user():
            outbox.remove_unused(box.directory)
    else:
        lock = take_lock(box.directory)
        _in_child(partial(outbox.remove_unused, box.directory))
        os.close(lock)
    assert box.directory.exists()


def test_an_outbox_whose_maker_died_at_once_is_told_as_such(box: Box) -> None:
    box.directory.mkdir(parents=True)
    (found,) = find_outboxes(box.root)
    assert (found.about, found.has_users, found.is_shipped) == (None, False, False)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run": "r"}', "null", "\xff"])
def test_an_about_that_is_none_is_none(box: Box, text: str) -> None:
    box.make()
    (box.directory / "about.json").write_bytes(text.encode("latin-1"))
    assert outbox.read_about(box.directory) is None


def test_whoever_looks_at_a_lock_takes_none(box: Box) -> None:
    box.make()
    lock = take_lock(box.directory)
    os.close(lock)
    assert not is_locked(box.directory / LOCK)
    os.close(take_lock(box.directory))


def test_there_is_no_lock_where_there_is_no_file(tmp_path: Path) -> None:
    assert not is_locked(tmp_path / "nothing")
    assert list(find_outboxes(tmp_path / "nothing")) == []


# -- lines ---------------------------------------------------------------------------------------------------------


def test_lines_come_as_they_are_appended(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "lines")
    assert lines.read() == []
    append_line(tmp_path / "lines", {"a": 1, "path": "/\udcff"})
    assert lines.read() == [{"a": 1, "path": "/\udcff"}]
    assert lines.read() == []
    append_line(tmp_path / "lines", {"b": 2})
    append_line(tmp_path / "lines", {"c": 3})
    assert lines.read() == [{"b": 2}, {"c": 3}]


def test_a_line_that_was_not_finished_costs_no_other(tmp_path: Path) -> None:
    """Somebody was killed, or the disk was full, in the middle of it."""
    path = tmp_path / "lines"
    lines = Lines(path)
    append_line(path, {"a": 1})
    with path.open("ab") as file:
        file.write(b'\n{"torn": ')
    assert lines.read() == [{"a": 1}]
    append_line(path, {"b": 2})
    assert lines.read() == [{"b": 2}]


def test_a_line_is_taken_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    lines = Lines(path)
    for piece in (b'\n{"a"', b": 1", b"}\n"):
        assert lines.read() == []
        with path.open("ab") as file:
            file.write(piece)
    assert lines.read() == [{"a": 1}]


@pytest.mark.parametrize("text", [b"[1]", b"null", b"nonsense", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_line_of_ours_is_left_out(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "lines"
    path.write_bytes(text + b"\n")
    append_line(path, {"a": 1})
    assert Lines(path).read() == [{"a": 1}]


def test_processes_that_append_at_once_do_not_mix_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "lines"

    def append(number: int) -> int:
        for count in range(200):
            append_line(path, {"from": number, "count": count, "long": "x" * 5000})
        return 0

    children: list[int] = []
    for number in range(4):
        pid = os.fork()
        if not pid:
            os._exit(append(number))
        children.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 4
    found = [(line["from"], line["count"]) for line in Lines(path).read()]
    assert len(found) == 800
    assert [count for number, count in found if number == 0] == list(range(200))
