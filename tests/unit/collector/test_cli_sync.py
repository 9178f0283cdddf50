"""`sync`: which spools it takes, and what it says became of each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import anyio
import anyio.from_thread
import pytest
from tests.support.outboxes import make_box, shippers_of
from tests.support.pipelines import ipc_address, peer, running
from tests.support.waiting import wait_until
from tests.support.writers import HandWriter

from allranks_bus import events
from allranks_bus.addresses import Address, parse_address
from allranks_bus.draining import Drained
from allranks_bus.errors import SpoolBusy, SpoolError
from allranks_bus.files.outbox import is_locked
from allranks_bus.spool import SpoolWriter
from allranks_bus.spool_directory import LOCK
from allranks_collector import cli
from allranks_collector.cli import sync

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from allranks_collector.store import Store


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spool root with three spools, and a collector at a fixed address that drains them as their number says."""
    root = tmp_path / "spool"
    for number in (1, 2, 3):
        (root / f"{number:032x}").mkdir(parents=True)
    monkeypatch.setenv("ALLRANKS_SPOOL", str(root))
    monkeypatch.setenv("ALLRANKS_URL", "tcp://h:7")

    def drain(directory: Path, address: Address, *, timeout_s: float) -> Drained:
        assert (address, timeout_s) == (parse_address("tcp://h:7"), 30.0)
        if directory.name.endswith("2"):
            raise SpoolBusy("busy")
        return Drained(directory, "run-x", 10, is_done=True)

    monkeypatch.setattr(sync, "drain", drain)
    monkeypatch.setattr(sync, "destination", dict.fromkeys(root.iterdir(), "offline").__getitem__)
    return root


@pytest.mark.usefixtures("root")
def test_a_spool_that_somebody_looks_at_just_now_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Path] = []

    def drain(directory: Path, _address: Address, *, timeout_s: float) -> Drained:
        asked.append(directory)
        if asked.count(directory) == 1:
            raise SpoolBusy("busy")
        return Drained(directory, "run-x", 10, is_done=True)

    monkeypatch.setattr(sync, "drain", drain)
    assert cli.main(["sync", "--json"]) == 0
    assert [result["busy"] for result in json.loads(capsys.readouterr().out)] == [False] * 3


@pytest.mark.usefixtures("root")
def test_all_spools_of_this_user_are_shipped(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sync", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert [(result["run"], result["records"], result["busy"]) for result in results] == [
        ("run-x", 10, False),
        ("", 0, True),
        ("run-x", 10, False),
    ]


def test_one_spool_can_be_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sync", str(root / f"{3:032x}"), "--json"]) == 0
    assert [result["spool"][-1] for result in json.loads(capsys.readouterr().out)] == ["3"]


def test_a_place_that_is_no_folder_is_wrong_usage(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sync", str(root / "none")]) == 2
    assert "is no folder" in capsys.readouterr().err


def test_nothing_to_do_starts_no_collector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLRANKS_SPOOL", str(tmp_path / "empty"))
    monkeypatch.delenv("ALLRANKS_URL", raising=False)
    monkeypatch.setattr(sync, "start", None)
    assert cli.main(["sync"]) == 0


def test_what_could_not_be_shipped_is_status_1(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def drain(directory: Path, _address: Address, *, timeout_s: float) -> Drained:
        if directory.name.endswith("1"):
            raise SpoolError(f"unreadable after {timeout_s:g} s")
        return Drained(directory, "run-x", 10, is_done=False, problem="the collector does not answer")

    monkeypatch.setattr(sync, "drain", drain)
    assert cli.main(["sync", str(root)]) == 1
    shown = capsys.readouterr().out
    assert "unreadable after 30 s" in shown
    assert "the collector does not answer" in shown


def opened(root: Path, destination: str) -> Path:
    """A spool whose writer wanted it to go there, and is gone."""
    name = bytes(15) + b"\x09"
    identity = {"run": "r", "project": "p", "launch": "l", "rank": 0, "world_size": 1, "host": "h", "pid": 1}
    opening = events.pack(events.Kind.OPEN, 1, identity | {"destination": destination})
    writer = SpoolWriter(root, name, lambda: opening)
    writer.append(events.pack(events.Kind.LOG, 2, 0, {"loss": 1.0}))
    writer.abandon()
    return root / name.hex()


@pytest.mark.parametrize(
    ("url", "wanted", "env", "goes_to"),
    [
        ("tcp://given:1", "tcp://wanted:2", {"ALLRANKS_URL": "tcp://env:3"}, "tcp://given:1"),
        (None, "tcp://wanted:2", {"ALLRANKS_URL": "tcp://env:3"}, "tcp://wanted:2"),
        (None, "offline", {"ALLRANKS_URL": "tcp://env:3"}, "tcp://env:3"),
        (None, "embedded:/h", {"ALLRANKS_URL": "tcp://env:3"}, "tcp://env:3"),
    ],
)
def test_where_a_spool_goes(tmp_path: Path, url: str | None, wanted: str, env: dict[str, str], goes_to: str) -> None:
    spool = opened(tmp_path, wanted)
    assert sync.Destinations(url, env).of(spool) == parse_address(goes_to)


# -- files ------------------------------------------------------------------------------------------------


@pytest.fixture
def address(store: Store) -> Iterator[Address]:
    """Where a pipeline listens, in a thread of its own, that knows the run `run-1`."""
    writer = HandWriter()
    with (
        ipc_address() as address,
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(running(store, address)),
        peer(address, writer) as one,
    ):
        anyio.run(one.meet)
        one.send(writer.batch([writer.open()], is_urgent=True))
        anyio.run(one.hear_position, 1)
        yield address


def _stored(store: Store) -> list[str]:
    with store.cursor() as cursor:
        return [name for (name,) in cursor.execute("SELECT name FROM files ORDER BY name").fetchall()]


@pytest.mark.parametrize("wanted", ["offline", "tcp://127.0.0.1:9"])
def test_files_of_an_offline_run_are_shipped(
    store: Store, address: Address, tmp_path: Path, capsys: pytest.CaptureFixture[str], wanted: str
) -> None:
    box = make_box(tmp_path, wanted)
    box.write("a.ckpt", b"weights")
    box.write("b/c.txt", b"text")
    box.make()
    assert cli.main(["sync", str(box.root), "--url", str(address), "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert (result["run"], result["files"], result["result"]) == ("run-1", 2, "stored")
    assert _stored(store) == ["a.ckpt", "b/c.txt"]
    assert not box.directory.exists()


def test_one_outbox_can_be_named(store: Store, address: Address, tmp_path: Path) -> None:
    one, other = make_box(tmp_path, "offline"), make_box(tmp_path, "offline", run="run-2")
    for box in (one, other):
        box.write("a", b"1")
        box.make()
    assert cli.main(["sync", str(one.directory), "--url", str(address)]) == 0
    assert _stored(store) == ["a"]
    assert (one.directory.exists(), other.directory.exists()) == (False, True)


def test_files_that_somebody_ships_are_let_be(
    address: Address, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    box = make_box(tmp_path, address)
    box.write("a", b"1")
    with box.user(), box.shipper():
        wait_until(lambda: shippers_of(box.directory), "it ships")
        wait_until(lambda: is_locked(box.directory / LOCK), "it has the lock")
        assert cli.main(["sync", str(box.root), "--url", str(address), "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result["busy"]


def test_files_that_nobody_takes_are_status_1_and_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    box = make_box(tmp_path, "offline")
    box.write("a", b"1")
    box.make()
    with ipc_address() as nowhere:
        assert cli.main(["sync", str(box.root), "--url", str(nowhere), "--timeout", "1"]) == 1
    assert "1 file not stored" in capsys.readouterr().out
    assert box.directory.exists()
