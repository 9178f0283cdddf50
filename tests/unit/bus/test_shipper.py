"""The shipper, as a process too: whoever lives, dies, or comes back, files arrive once and nothing is left."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.file_receiver import FileReceiver
from tests.support.outboxes import Box, make_box
from tests.support.waiting import wait_until

from allranks_bus.addresses import Address
from allranks_bus.errors import SpoolBusy, SpoolError
from allranks_bus.files import outbox
from allranks_bus.files import shipper as shippers
from allranks_bus.files.outbox import is_locked
from allranks_bus.files.outbox_ledger import Flush, Flushed, News, want
from allranks_bus.files.shipper import Progress, ship
from allranks_bus.spool_directory import LOCK, take_lock
from allranks_bus.wire import Offer, Up

MIB = 1024 * 1024
_END_S = 60.0


@pytest.fixture
def box(tmp_path: Path, tcp_address: Address) -> Box:
    return make_box(tmp_path, tcp_address)


def test_files_of_a_training_that_is_gone_are_shipped_and_the_outbox_goes(box: Box, tcp_address: Address) -> None:
    box.write("a", "1")
    box.write("deep/b", "2")
    box.make()
    with FileReceiver(tcp_address) as receiver:
        shipped = ship(box.directory, until_done=False)
    assert (shipped.run, shipped.stored, shipped.left, shipped.problems) == ("run-1", 2, 0, ())
    assert shipped.is_removed
    assert not box.directory.exists()
    assert receiver.names == {"a", "deep/b"}


def test_it_ships_for_as_long_as_a_training_lives_and_then_ends(box: Box, tcp_address: Address) -> None:
    with FileReceiver(tcp_address) as receiver, box.user() as user, box.shipper() as shipper:
        for name in ("a", "b"):
            box.write(name, name)
            wait_until(lambda: name in receiver.names, "it has arrived")  # noqa: B023
        assert shipper.poll() is None
        os.kill(user, signal.SIGKILL)
        assert shipper.wait(_END_S) == 0
    assert not box.directory.exists()


def test_what_is_written_right_before_the_end_arrives(box: Box, tcp_address: Address) -> None:
    """As it is, however new."""
    with FileReceiver(tcp_address) as receiver, box.user() as user, box.shipper() as shipper:
        wait_until(lambda: is_locked(box.directory / LOCK), "it is at work")
        box.write("last", "words", age_s=0.0)
        os.kill(user, signal.SIGKILL)
        assert shipper.wait(_END_S) == 0
    assert receiver.content("last") == b"words"


def test_of_two_one_ships(box: Box, tcp_address: Address) -> None:
    with box.user(), box.shipper() as first:
        wait_until(lambda: is_locked(box.directory / LOCK), "it is at work")
        with box.shipper() as second:
            assert second.wait(_END_S) == 0
        with pytest.raises(SpoolBusy):
            ship(box.directory, until_done=True)
        assert first.poll() is None


def test_one_that_was_killed_is_gone_on_from(box: Box, tcp_address: Address) -> None:
    """The next one sends the rest, and not all again."""
    content = os.urandom(60 * MIB)
    box.write("large", content)
    box.make()
    with FileReceiver(tcp_address) as receiver:
        receiver.answer = _slowly
        with box.shipper() as shipper:
            wait_until(lambda: len(receiver.chunks()) > 10, "it has begun", timeout_s=_END_S)
            shipper.kill()
            shipper.wait(_END_S)
        before = len(receiver.chunks())
        receiver.answer = lambda _: False
        ship(box.directory, until_done=False)
        first = next(chunk for chunk in receiver.chunks() if chunk.sender != receiver.chunks()[0].sender)
    assert receiver.content("large") == content
    assert first.offset >= before * MIB - 17 * MIB
    assert first.offset > 0


def _slowly(message: Up) -> bool:
    time.sleep(0.02)
    return False


def test_a_collector_that_comes_back_is_gone_on_with(box: Box, tcp_address: Address) -> None:
    content = os.urandom(60 * MIB)
    box.write("large", content)
    receiver = FileReceiver(tcp_address)
    with box.user(), box.shipper():
        with receiver:
            wait_until(lambda: len(receiver.chunks()) > 10, "it has begun", timeout_s=_END_S)
        before = len(receiver.chunks())
        with receiver:
            wait_until(lambda: receiver.content("large") == content, "it has arrived", timeout_s=_END_S)
    assert receiver.chunks()[before].offset > 0


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_it_may_be_ended_at_any_time(box: Box, tcp_address: Address, ending: signal.Signals) -> None:
    """At once, and nothing is lost by that."""
    box.write("a", "1")
    box.make()
    with box.user() as user:
        with box.shipper() as shipper:
            wait_until(lambda: is_locked(box.directory / LOCK), "it is at work")
            shipper.send_signal(ending)
            assert shipper.wait(_END_S) == -ending
        os.kill(user, signal.SIGKILL)
    with FileReceiver(tcp_address) as receiver:
        wait_until(lambda: not is_locked(box.directory / "users"), "nobody uses it")
        assert ship(box.directory, until_done=False).left == 0
    assert receiver.names == {"a"}


def test_the_terminals_ctrl_c_is_not_meant_for_it(box: Box, tcp_address: Address) -> None:
    with FileReceiver(tcp_address) as receiver, box.user(), box.shipper() as shipper:
        wait_until(lambda: is_locked(box.directory / LOCK), "it is at work")
        shipper.send_signal(signal.SIGINT)
        box.write("a", "1")
        wait_until(lambda: receiver.names == {"a"}, "it has arrived")


def test_it_lets_the_training_go_first(box: Box, tcp_address: Address) -> None:
    """Its priority is low."""
    with box.user(), box.shipper() as shipper:
        wait_until(lambda: is_locked(box.directory / LOCK), "it is at work")
        assert os.getpriority(os.PRIO_PROCESS, shipper.pid) > os.getpriority(os.PRIO_PROCESS, 0)


def test_in_a_sandbox_that_would_make_zeromq_abort_it_sends_nothing_and_says_so(
    box: Box, tcp_address: Address, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def denied(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", denied)

    def nothing(*_: object) -> None:
        """What it does to its own process is not for that of the tests."""

    monkeypatch.setattr(shippers, "step_back", nothing)
    monkeypatch.setattr(signal, "signal", nothing)
    box.write("a", "1")
    box.make()
    with FileReceiver(tcp_address) as receiver:
        assert shippers.main([str(box.directory)]) == 1
        assert receiver.names == set()
    assert "sched_setscheduler" in capsys.readouterr().err
    assert (box.directory / "about.json").exists()


def test_where_no_collector_answers_it_ends_and_leaves_the_outbox(box: Box) -> None:
    box.write("a", "1")
    box.make()
    began = time.monotonic()
    with box.shipper() as shipper:
        assert shipper.wait(_END_S) == 1
    assert time.monotonic() - began < _END_S
    assert (box.directory / "about.json").exists()


def test_a_collector_that_lets_files_wait_is_waited_for(box: Box, tcp_address: Address) -> None:
    """Longer than one that is silent."""
    box.write("a", "1")
    box.make()
    began = time.monotonic()
    with FileReceiver(tcp_address) as receiver:
        receiver.answer = lambda message: isinstance(message, Offer) and time.monotonic() - began < 5.0
        assert ship(box.directory, until_done=False).left == 0


def test_a_file_that_is_refused_is_told_and_left(box: Box, tcp_address: Address) -> None:
    box.write("a", "1")
    box.make()
    with FileReceiver(tcp_address) as receiver:
        receiver.refuse("no space left", is_final=False)
        with box.shipper() as shipper:
            _, printed = shipper.communicate(timeout=_END_S)
    assert shipper.returncode == 1
    assert printed.decode() == "allranks: a cannot be stored at the moment, and is tried again: no space left\n"
    assert box.directory.exists()


def test_a_link_that_leads_out_is_told_and_does_not_keep_the_outbox(box: Box, tcp_address: Address) -> None:
    (box.run / "link").symlink_to("/etc/passwd")
    box.write("a", "1")
    box.make()
    with FileReceiver(tcp_address) as receiver:
        shipped = ship(box.directory, until_done=False)
    assert receiver.names == {"a"}
    assert shipped.is_removed
    (problem,) = shipped.problems
    assert "link leads out" in problem


def test_on_a_network_file_system_a_file_is_the_same_for_all_hosts(
    box: Box, tcp_address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allranks_bus.home.is_network", box.run.is_relative_to)
    box.write("a", "1")
    with FileReceiver(tcp_address) as receiver:
        for host in ("host-1", "host-2"):
            theirs = replace(box, root=box.root / host, about=replace(box.about, host=host))
            theirs.make()
            assert ship(theirs.directory, until_done=True).stored == 1
    assert len(receiver.chunks()) == 1


def test_an_outbox_that_is_used_may_be_shipped_by_hand_and_stays(box: Box, tcp_address: Address) -> None:
    box.write("a", "1", age_s=0.0)
    with FileReceiver(tcp_address) as receiver, box.user():
        shipped = ship(box.directory, until_done=True)
        assert (shipped.stored, shipped.left, shipped.is_removed) == (1, 0, False)
    assert receiver.names == {"a"}


def test_an_offline_outbox_goes_where_it_is_told_to(tmp_path: Path, tcp_address: Address) -> None:
    box = make_box(tmp_path, "offline")
    box.write("a", "1")
    box.make()
    shipped = ship(box.directory, until_done=True)
    assert shipped.left == 1
    assert "offline" in shipped.problems[0]
    with FileReceiver(tcp_address) as receiver:
        assert ship(box.directory, str(tcp_address), until_done=True).is_removed
    assert receiver.names == {"a"}


def test_an_outbox_whose_maker_died_at_once_is_removed(box: Box) -> None:
    box.directory.mkdir(parents=True)
    assert ship(box.directory, until_done=False).is_removed
    assert not box.directory.exists()


def test_there_is_nothing_to_ship_where_there_is_no_outbox(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match="no outbox"):
        ship(tmp_path / "nothing", until_done=True)


def test_a_flush_is_answered(box: Box, tcp_address: Address) -> None:
    box.write("a", "1", age_s=0.0)
    with FileReceiver(tcp_address) as receiver, box.user() as user, box.shipper():
        want(box.directory, Flush("token", "aa" * 16, user))
        news = News(box.directory)
        told = wait_until(news.read, "the flush is done")
    assert told == [Flushed("token", 0)]
    assert receiver.names == {"a"}


def test_somebody_who_comes_while_it_ends_is_served(box: Box, tcp_address: Address) -> None:
    """The outbox is not removed under a training that has just begun to use it."""
    box.write("a", "1")
    box.make()

    users: list[int] = []

    def come(message: Up) -> bool:
        if isinstance(message, Offer) and not users:
            users.append(stack.enter_context(box.user()))
        return False

    with contextlib.ExitStack() as stack, FileReceiver(tcp_address) as receiver, box.shipper() as shipper:
        receiver.answer = come
        wait_until(lambda: "a" in receiver.names, "it has arrived")
        box.write("b", "2")
        wait_until(lambda: "b" in receiver.names, "it goes on")
        assert shipper.poll() is None
        assert box.directory.exists()
        os.kill(users[0], signal.SIGKILL)
        assert shipper.wait(_END_S) == 0


def test_progress_is_told_and_it_stops_when_asked(box: Box, tcp_address: Address) -> None:
    box.write("large", bytes(100 * MIB))
    box.make()
    told: list[Progress] = []
    with FileReceiver(tcp_address) as receiver:
        receiver.answer = _slowly
        shipped = ship(box.directory, until_done=True, on_progress=told.append, should_stop=lambda: len(told) > 4)
    assert shipped.left == 1
    assert {progress.name for progress in told} == {"large"}
    assert [progress.bytes_sent for progress in told] == sorted(progress.bytes_sent for progress in told)
    assert all(progress.bytes_sent + progress.bytes_left == 100 * MIB for progress in told)
    assert is_locked(box.directory / LOCK) is False
    os.close(take_lock(box.directory))


def test_many_small_files_arrive(box: Box, tcp_address: Address) -> None:
    for number in range(300):
        box.write(f"f{number}", b"%d" % number)
    box.make()
    with FileReceiver(tcp_address) as receiver:
        assert ship(box.directory, until_done=True).stored == 300
    assert len(receiver.names) == 300
    assert outbox.read_about(box.directory) is None
