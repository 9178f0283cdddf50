"""The agenda: what is sent when, what is told, and when a flush is done. Without a collector."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.support.outboxes import Box, make_box

from allranks_bus.files.agenda import Agenda, Wish
from allranks_bus.files.outbox_ledger import Flush, Flushed, News, Policy, Problem, Save, User, want

ME = User("aa" * 16, 3, "launch-7")
OTHER = User("bb" * 16, 4, "launch-7")


@dataclass
class Desk:
    """An agenda, and the outbox that it is of."""

    box: Box
    others: bool = False
    said: list[str] = field(default_factory=list[str])
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.box.make()
        self.agenda = self._agenda()
        self.news = News(self.box.directory)

    def _agenda(self) -> Agenda:
        return Agenda(
            self.box.directory,
            self.box.about,
            os.getuid(),
            has_others=lambda _: self.others,
            say=self.said.append,
        )

    def restart(self) -> None:
        """As a process that ships goes on after another one was killed."""
        self.agenda = self._agenda()

    def save(self, pattern: Path, policy: Policy = Policy.LIVE, *, base: Path | None = None, user: User = ME) -> None:
        want(self.box.directory, Save(str(pattern), str(base or pattern.parent), policy, user))

    def flush(self, user: User = ME) -> str:
        want(self.box.directory, Flush(f"token of {user.rank}", user.writer, 1))
        return f"token of {user.rank}"

    def due(self, passed_s: float = 2.0, *, room: int = 2**40) -> list[Wish]:
        """What is to be sent when so much time has passed."""
        self.now += passed_s
        self.agenda.read(self.now)
        self.agenda.look(self.now)
        found: list[Wish] = []
        while (wish := self.agenda.next(self.now, lambda size: size <= room)) is not None:
            found.append(wish)
        return found

    def store_all(self, passed_s: float = 2.0) -> list[str]:
        """Stores what is to be sent; the names."""
        wishes = self.due(passed_s)
        for wish in wishes:
            self.agenda.stored(wish, "d" * 64, self.now)
        self.agenda.answer()
        return sorted(wish.found.name for wish in wishes)

    def is_served(self) -> bool:
        return self.agenda.is_served

    def flushed(self) -> list[Flushed]:
        return [news for news in self.news.read() if isinstance(news, Flushed)]


def _write(path: Path, content: bytes) -> None:
    """A file that was last written to a while ago."""
    path.write_bytes(content)
    then = path.stat().st_mtime_ns - 10 * 10**9
    os.utime(path, ns=(then, then))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(make_box(tmp_path, "offline"))


# -- what is sent --------------------------------------------------------------------------------------------------


def test_what_is_in_the_runs_directory_is_sent_once_and_again_when_it_has_changed(desk: Desk) -> None:
    desk.box.write("a", "1")
    desk.box.write("b/c", "1")
    assert desk.store_all() == ["a", "b/c"]
    assert desk.store_all() == []
    desk.box.write("a", "2")
    assert desk.store_all() == ["a"]


def test_a_file_of_the_runs_directory_is_nobodys_in_particular(desk: Desk) -> None:
    """It is of the newest launch: an older one has ended."""
    want(desk.box.directory, User("cc" * 16, 0, "launch-old"))
    want(desk.box.directory, ME)
    desk.box.write("a", "1")
    (wish,) = desk.due()
    assert (wish.rank, wish.launch) == (None, "launch-7")


def test_before_anybody_has_told_who_it_is_the_launch_is_its_makers(desk: Desk) -> None:
    desk.box.write("a", "1")
    (wish,) = desk.due()
    assert wish.launch == "launch-1"


def test_what_is_stored_is_known_to_the_next_process_that_ships(desk: Desk) -> None:
    desk.box.write("a", "1")
    desk.store_all()
    desk.restart()
    desk.box.write("b", "1")
    assert desk.store_all() == ["b"]


@pytest.mark.parametrize(("is_network", "again"), [(False, ["a"]), (True, [])])
def test_a_new_inode_is_a_new_file_but_on_a_network_file_system(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, is_network: bool, again: list[str]
) -> None:
    """Some give a file another one whenever they like."""

    def told(_: Path) -> bool:
        return is_network

    monkeypatch.setattr("allranks_bus.home.is_network", told)
    path = desk.box.write("a", "1")
    then = path.stat().st_mtime_ns
    assert desk.store_all() == ["a"]
    path.rename(desk.box.root / "old")  # so that its inode stays taken
    desk.box.write("a", "1")
    os.utime(path, ns=(then, then))
    assert desk.store_all() == again


def test_a_file_that_was_under_way_is_sent_by_the_next_process(desk: Desk) -> None:
    desk.box.write("a", "1")
    desk.due()
    assert desk.due() == []
    desk.restart()
    assert desk.store_all() == ["a"]


def test_a_saved_file_is_its_ranks(desk: Desk, tmp_path: Path) -> None:
    _write(tmp_path / "model.pt", b"x")
    desk.save(tmp_path / "*.pt")
    (wish,) = desk.due()
    assert (wish.found.name, wish.rank, wish.launch, wish.writer) == ("model.pt", 3, "launch-7", ME.writer)


def test_live_files_are_looked_for_again_and_again(desk: Desk, tmp_path: Path) -> None:
    desk.save(tmp_path / "*.pt")
    assert desk.store_all() == []
    _write(tmp_path / "a.pt", b"x")
    assert desk.store_all() == ["a.pt"]
    _write(tmp_path / "a.pt", b"xy")
    assert desk.store_all() == ["a.pt"]


def test_files_for_now_are_sent_once(desk: Desk, tmp_path: Path) -> None:
    _write(tmp_path / "a.pt", b"x")
    desk.save(tmp_path / "*.pt", Policy.NOW)
    assert desk.store_all() == ["a.pt"]
    _write(tmp_path / "a.pt", b"xy")
    assert desk.store_all() == []
    desk.restart()
    assert desk.store_all() == []


def test_files_for_now_may_be_asked_for_again(desk: Desk, tmp_path: Path) -> None:
    """A checkpoint with a new name each time, and one pattern for all."""
    for name in ("a.pt", "b.pt"):
        _write(tmp_path / name, b"x")
        desk.save(tmp_path / "*.pt", Policy.NOW)
        assert desk.store_all() == [name]
        assert desk.store_all() == []


def test_files_for_the_end_wait_for_the_end_of_who_saved_them(desk: Desk, tmp_path: Path) -> None:
    for name, user in (("mine", ME), ("others", OTHER)):
        _write(tmp_path / name, b"x")
        desk.save(tmp_path / name, Policy.END, user=user)
    assert desk.store_all() == []
    desk.flush()
    assert desk.store_all() == ["mine"]
    desk.restart()
    assert desk.store_all() == []
    desk.agenda.leave(desk.now)
    assert desk.store_all() == ["others"]


def test_one_file_under_two_names_is_sent_as_both(desk: Desk, tmp_path: Path) -> None:
    desk.box.write("sub/a", "1")
    desk.save(desk.box.run / "sub" / "a")
    assert desk.store_all() == ["a", "sub/a"]


def test_a_saved_file_of_the_runs_directory_is_sent_once(desk: Desk) -> None:
    desk.box.write("sub/a", "1")
    desk.save(desk.box.run / "sub" / "*", Policy.END, base=desk.box.run)
    assert desk.store_all() == ["sub/a"]
    desk.agenda.leave(desk.now)
    assert desk.store_all() == []


def test_small_files_come_before_large_ones_and_old_before_new(desk: Desk) -> None:
    desk.box.write("large", bytes(5 * 1024 * 1024), age_s=100.0)
    desk.box.write("new", "1", age_s=10.0)
    desk.box.write("old", "1", age_s=20.0)
    assert [wish.found.name for wish in desk.due()] == ["old", "new", "large"]


def test_a_file_without_room_waits(desk: Desk) -> None:
    desk.box.write("a", "12345")
    assert desk.due(room=4) == []
    assert [wish.found.name for wish in desk.due(room=5)] == ["a"]


def test_a_file_that_has_just_been_written_waits_until_it_is_quiet(desk: Desk) -> None:
    desk.box.write("a", "1", age_s=-60.0)
    assert desk.due() == []
    assert [wish.found.name for wish in desk.due()] == ["a"]


def test_a_file_that_is_open_waits_until_it_is_closed(desk: Desk) -> None:
    path = desk.box.write("a", "1")
    with path.open("ab"):
        assert desk.due(0.5) == []
        assert desk.due(1.5) == []
    assert [wish.found.name for wish in desk.due()] == ["a"]


# -- how it ends ---------------------------------------------------------------------------------------------------


def test_a_file_that_changed_is_tried_again_and_told_of_after_three_times(desk: Desk) -> None:
    desk.box.write("a", "1")
    for time in range(1, 5):
        (wish,) = desk.due()
        desk.agenda.changed(wish, desk.now)
        assert len(desk.said) == (1 if time >= 3 else 0)
    assert "a has changed while it was sent, 3 times in a row" in desk.said[0]
    assert desk.store_all() == ["a"]


def test_a_file_that_is_refused_for_ever_is_told_of_once_and_not_sent_again(desk: Desk) -> None:
    desk.box.write("a", "1")
    (wish,) = desk.due()
    desk.agenda.never(wish, "it is too large", desk.now)
    assert desk.said == ["a is not stored: it is too large"]
    assert desk.due(100.0) == []
    desk.restart()
    assert desk.due(100.0) == []
    desk.box.write("a", "2")
    assert len(desk.due()) == 1


def test_a_file_that_cannot_be_stored_now_is_tried_later_and_less_and_less_often(desk: Desk) -> None:
    desk.box.write("a", "1")
    tries: list[float] = []
    for _ in range(200):
        for wish in desk.due(1.0):
            tries.append(desk.now)
            desk.agenda.not_now(wish, "no space left", desk.now)
    pauses = [later - sooner for sooner, later in itertools.pairwise(tries)]
    assert 5.0 <= pauses[0] <= 7.0
    assert pauses == sorted(pauses)
    assert max(pauses) <= 62.0
    assert len(desk.said) == 1
    assert desk.agenda.left == 1


def test_a_problem_is_told_to_the_user_once_whoever_ships(desk: Desk) -> None:
    want(desk.box.directory, ME)
    (desk.box.run / "link").symlink_to("/etc/passwd")
    desk.due()
    desk.restart()
    desk.due()
    (problem,) = desk.news.read()
    assert isinstance(problem, Problem)
    assert problem.writer == ME.writer
    assert "leads out" in problem.text
    assert len(desk.said) == 1


def test_a_file_that_is_gone_is_no_problem(desk: Desk) -> None:
    """The oldest of three checkpoints, say, has been removed."""
    path = desk.box.write("a", "1")
    (wish,) = desk.due()
    path.unlink()
    desk.agenda.gone(wish)
    assert desk.due() == []
    assert desk.agenda.left == 0
    assert desk.said == []


# -- flushes -------------------------------------------------------------------------------------------------------


def test_a_flush_sends_everything_as_it_is(desk: Desk) -> None:
    path = desk.box.write("a", "1", age_s=-60.0)
    with path.open("ab"):
        assert desk.due(1.0) == []
        token = desk.flush()
        desk.due(0.0)
        assert desk.flushed() == []
        assert desk.store_all(0.5) == ["a"]
    assert desk.flushed() == [Flushed(token, 0)]


def test_a_flush_is_done_only_when_all_is_stored(desk: Desk) -> None:
    desk.box.write("a", "1")
    desk.box.write("b", "1")
    token = desk.flush()
    first, second = desk.due(0.1)
    desk.agenda.stored(first, "d" * 64, desk.now)
    desk.agenda.answer()
    assert desk.flushed() == []
    desk.agenda.stored(second, "d" * 64, desk.now)
    desk.agenda.answer()
    assert desk.flushed() == [Flushed(token, 0)]


def test_a_flush_with_nothing_to_do_is_done_after_a_look(desk: Desk) -> None:
    desk.due(10.0)
    token = desk.flush()
    desk.now += 0.01
    desk.agenda.read(desk.now)
    desk.agenda.answer()
    assert desk.flushed() == []
    desk.agenda.look(desk.now)
    desk.agenda.answer()
    assert desk.flushed() == [Flushed(token, 0)]


def test_a_flush_waits_for_the_state_that_a_file_is_in(desk: Desk) -> None:
    """And not for the one in which it was already under way."""
    desk.box.write("a", "1")
    (old,) = desk.due()
    desk.box.write("a", "22")
    token = desk.flush()
    assert desk.due() == []
    desk.agenda.stored(old, "d" * 64, desk.now)
    desk.agenda.answer()
    assert desk.flushed() == []
    assert desk.store_all() == ["a"]
    assert desk.flushed() == [Flushed(token, 0)]


def test_a_flush_tells_what_could_not_be_stored(desk: Desk) -> None:
    """It does not wait for the next try."""
    desk.box.write("a", "1")
    desk.box.write("b", "1")
    token = desk.flush()
    a, b = desk.due()
    desk.agenda.not_now(a, "no space left", desk.now)
    desk.agenda.never(b, "too large", desk.now)
    desk.agenda.answer()
    assert desk.flushed() == [Flushed(token, 1)]


def test_a_flush_tries_at_once_what_was_to_be_tried_later(desk: Desk) -> None:
    desk.box.write("a", "1")
    (wish,) = desk.due()
    desk.agenda.not_now(wish, "no space left", desk.now)
    assert desk.due(1.0) == []
    desk.flush()
    assert desk.store_all(0.1) == ["a"]


def test_a_flush_does_not_wait_for_what_another_process_is_writing(desk: Desk) -> None:
    """Rank 0 writes the last checkpoint, and all others have ended."""
    desk.others = True
    desk.box.write("a", "1")
    path = desk.box.write("checkpoint", "1")
    with path.open("ab"):
        token = desk.flush()
        assert desk.store_all() == ["a"]
        assert desk.flushed() == [Flushed(token, 0)]


def test_a_flush_that_is_done_is_not_done_again_by_the_next_process(desk: Desk) -> None:
    desk.flush()
    desk.store_all()
    assert len(desk.flushed()) == 1
    desk.restart()
    desk.store_all()
    assert not desk.agenda.is_in_a_hurry
    assert desk.flushed() == []


def test_a_flush_of_another_process_is_answered_by_its_own_name(desk: Desk) -> None:
    tokens = {desk.flush(), desk.flush(OTHER)}
    desk.store_all()
    assert {flushed.token for flushed in desk.flushed()} == tokens


# -- the end -------------------------------------------------------------------------------------------------------


def test_it_is_served_once_all_has_been_stored_or_tried(desk: Desk) -> None:
    desk.box.write("a", "1")
    desk.box.write("b", "1")
    assert not desk.is_served()
    desk.agenda.leave(desk.now)
    a, b = desk.due()
    desk.agenda.stored(a, "d" * 64, desk.now)
    assert not desk.is_served()
    desk.agenda.not_now(b, "no space left", desk.now)
    assert desk.is_served()
    assert desk.agenda.left == 1
    desk.agenda.stay()
    assert not desk.is_served()


def test_where_nobody_waits_it_looks_seldom(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a second, and never for more than a twentieth of the time."""
    looks: list[float] = []

    def slow_walk(_: str) -> list[object]:
        looks.append(desk.now)
        return []

    monkeypatch.setattr("allranks_bus.files.agenda.walk", slow_walk)
    for _ in range(100):
        desk.due(0.1)
    assert 9 <= len(looks) <= 11


def test_lines_that_nobody_understands_are_passed_over(desk: Desk) -> None:
    """A newer version may have written them."""
    for line in (
        b'{"save": 5}',
        b'{"save": {"pattern": "/"}}',
        b'{"user": []}',
        b'{"flush": {"a": 1}}',
        b'{"new": 1}',
    ):
        with (desk.box.directory / "wanted.jsonl").open("ab") as file:
            file.write(line + b"\n")
    (desk.box.directory / "sent.jsonl").write_bytes(b'{"path": "a"}\n{"path": [], "name": 1, "state": 5}\n')
    (desk.box.directory / "told.jsonl").write_bytes(b'{"flushed": 5}\n{"problem": {}}\n')
    desk.restart()
    desk.box.write("a", "1")
    assert desk.store_all() == ["a"]
