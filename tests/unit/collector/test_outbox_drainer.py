"""Orphaned outboxes are shipped, those of the living are let be, and no shipper is left behind."""

from __future__ import annotations

import itertools
from collections.abc import Generator
from pathlib import Path

import anyio
import pytest
from tests.support.outboxes import make_box, shippers_of
from tests.support.pipelines import ipc_address, peer, running
from tests.support.writers import HandWriter

from allranks_bus.addresses import Address
from allranks_collector.outbox_drainer import OutboxDrainer
from allranks_collector.store import Store

pytestmark = pytest.mark.anyio


@pytest.fixture
def address() -> Generator[Address]:
    with ipc_address() as address:
        yield address


def _names(store: Store) -> list[str]:
    with store.cursor() as cursor:
        return [name for (name,) in cursor.execute("SELECT name FROM files ORDER BY name").fetchall()]


async def _begin_run(address: Address) -> None:
    with peer(address, HandWriter()) as one:
        await one.meet()
        one.send(one.writer.batch([one.writer.open()]))
        await one.hear_position(1)


async def _gone(path: Path) -> None:
    with anyio.fail_after(60):
        while path.exists():
            await anyio.sleep(0.05)


async def test_what_a_killed_training_left_comes_in(store: Store, address: Address, tmp_path: Path) -> None:
    box = make_box(tmp_path, address)
    box.write("a.ckpt", b"weights")
    box.write("logs/b.txt", b"text")
    box.make()
    drainer = OutboxDrainer((tmp_path / "none", box.root), address, accepts=lambda wanted: wanted == str(address))
    async with running(store, address), anyio.create_task_group() as task_group:
        await _begin_run(address)
        task_group.start_soon(drainer.run)
        await _gone(box.directory)
        task_group.cancel_scope.cancel()
    assert _names(store) == ["a.ckpt", "logs/b.txt"]
    assert not drainer.is_busy


async def test_those_of_the_living_and_those_meant_for_others_are_let_be(address: Address, tmp_path: Path) -> None:
    living, elsewhere = make_box(tmp_path, address), make_box(tmp_path, "offline", run="run-2")
    elsewhere.make()
    asked: list[str] = []

    def accepts(wanted: str) -> bool:
        asked.append(wanted)
        return wanted == str(address)

    drainer = OutboxDrainer((living.root,), address, accepts=accepts)
    with living.user():
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(drainer.run)
            with anyio.fail_after(60):
                while not asked:
                    await anyio.sleep(0.05)
            task_group.cancel_scope.cancel()
    assert set(asked) == {"offline"}
    assert not (living.directory / "shipper.log").exists()
    assert not (elsewhere.directory / "shipper.log").exists()


async def test_no_shipper_outlives_the_drainer(address: Address, tmp_path: Path) -> None:
    """Here it waits for a collector that is not there."""
    box = make_box(tmp_path, address)
    box.write("a.ckpt", b"weights")
    box.make()
    drainer = OutboxDrainer((box.root,), address, accepts=lambda _: True)
    async with anyio.create_task_group() as task_group:
        task_group.start_soon(drainer.run)
        with anyio.fail_after(60):
            while not shippers_of(box.directory):
                await anyio.sleep(0.05)
        assert drainer.is_busy
        task_group.cancel_scope.cancel()
    assert shippers_of(box.directory) == []
    assert not drainer.is_busy
    assert box.directory.exists()


async def test_the_last_look_is_at_what_was_to_wait_too(
    store: Store, address: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = make_box(tmp_path, address)
    box.write("a.ckpt", b"weights")
    box.make()
    drainer = OutboxDrainer((box.root,), address, accepts=lambda _: True)
    async with running(store, address):
        await _begin_run(address)
        monkeypatch.setattr("allranks_collector.outbox_drainer.sys.executable", "/bin/false")
        await drainer.last_look(60.0)
        assert box.directory.exists()
        monkeypatch.undo()
        await drainer.last_look(60.0)
    assert _names(store) == ["a.ckpt"]
    assert not box.directory.exists()


async def test_the_last_look_ends_in_time_and_leaves_no_shipper(address: Address, tmp_path: Path) -> None:
    """Here the shipper waits for a collector that is not there."""
    boxes = [make_box(tmp_path, address, run=run) for run in ("run-1", "run-2")]
    for box in boxes:
        box.write("a.ckpt", b"weights")
        box.make()
    drainer = OutboxDrainer((boxes[0].root,), address, accepts=lambda _: True)
    with anyio.fail_after(60):
        await drainer.last_look(1.0)
    assert [shippers_of(box.directory) for box in boxes] == [[], []]
    assert not drainer.is_busy
    assert all(box.directory.exists() for box in boxes)


async def test_what_could_not_be_shipped_is_tried_again_later(
    address: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allranks_collector.outbox_drainer._EVERY_S", 0.01)
    monkeypatch.setattr("allranks_collector.outbox_drainer.sys.executable", "/bin/false")
    box = make_box(tmp_path, address)
    box.make()
    drainer = OutboxDrainer((box.root,), address, accepts=lambda _: True)
    tries: list[float] = []
    ship = drainer._run_shipper  # pyright: ignore[reportPrivateUsage]

    async def counted(directory: Path) -> int:
        tries.append(anyio.current_time())
        return await ship(directory)

    monkeypatch.setattr(drainer, "_run_shipper", counted)
    monkeypatch.setattr("allranks_collector.outbox_drainer._AGAIN_S", 0.2)
    async with anyio.create_task_group() as task_group:
        task_group.start_soon(drainer.run)
        with anyio.fail_after(60):
            while len(tries) < 4:
                await anyio.sleep(0.01)
        task_group.cancel_scope.cancel()
    pauses = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert all(pause >= least for pause, least in zip(pauses, (0.2, 0.4, 0.8), strict=True))
