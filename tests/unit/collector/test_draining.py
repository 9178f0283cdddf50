"""Spools whose writers are gone come in once, and those of the living are let be."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path

import anyio
import anyio.from_thread
import pytest
from tests.support.draining import drain_all
from tests.support.pipelines import ipc_address, running
from tests.support.writers import T0_NS, HandWriter, numbers

from allranks_bus import events
from allranks_bus.addresses import Address
from allranks_bus.draining import drain
from allranks_bus.errors import SpoolBusy
from allranks_bus.events import Kind
from allranks_bus.spool import SpoolWriter
from allranks_bus.spool_directory import find_spools
from allranks_collector.drainer import Drainer
from allranks_collector.store import Store

_REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def address(store: Store) -> Generator[Address]:
    """Where a pipeline listens, in a thread of its own."""
    with (
        ipc_address() as address,
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(running(store, address)),
    ):
        yield address


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def _leave(root: Path, writer: HandWriter, payloads: list[bytes], *, segment_bytes: int = 1 << 24) -> Path:
    """What a writer leaves that died."""
    spool = SpoolWriter(root, writer.name, writer.open, segment_bytes=segment_bytes)
    for payload in payloads:
        assert spool.append(payload)
    spool.close()
    return spool.directory


def _steps(store: Store) -> list[int]:
    with store.cursor() as cursor:
        return [step for (step,) in cursor.execute("SELECT step FROM points ORDER BY rowid").fetchall()]


def test_what_a_dead_writer_left_comes_in_and_its_spool_is_gone(store: Store, address: Address, root: Path) -> None:
    directory = _leave(root, HandWriter(), numbers(0, 20_000), segment_bytes=1 << 18)
    drained = drain(directory, address)
    assert (drained.run, drained.records > 20_000, drained.is_done, drained.problem) == ("run-1", True, True, "")
    assert _steps(store) == list(range(20_000))
    assert not directory.exists()


def test_what_had_come_in_before_does_not_come_again(store: Store, address: Address, root: Path) -> None:
    writer = HandWriter()
    _leave(root, writer, numbers(0, 100))
    (directory,) = find_spools(root)
    kept = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert drain(directory, address).is_done
    directory.mkdir()
    for name, body in kept.items():
        (directory / name).write_bytes(body)
    assert drain(directory, address).is_done
    assert _steps(store) == list(range(100))


def test_two_drainers_of_one_spool_are_one(store: Store, address: Address, root: Path) -> None:
    _leave(root, HandWriter(), numbers(0, 5000))
    (directory,) = find_spools(root)
    # Another process, because the spool's lock is a process's.
    command = [sys.executable, "-m", "tests.faults.programs.drain", str(root), str(address)]
    others = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=_REPOSITORY) for _ in range(2)]
    told = [other.communicate(timeout=60)[0] for other in others]
    assert {b"0\n", b"1\n"} >= set(told)
    assert _steps(store) == list(range(5000))
    assert not directory.exists()


def test_the_spool_of_a_living_writer_is_let_be(root: Path, address: Address) -> None:
    program = (
        "import sys; from pathlib import Path; from allranks_bus.spool import SpoolWriter;"
        "spool = SpoolWriter(Path(sys.argv[1]), b'w' * 16, lambda: b'opening');"
        "print('up', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        (directory,) = find_spools(root)
        with pytest.raises(SpoolBusy):
            drain(directory, address)
        assert list(drain_all(root, address)) == []
        assert len(list(directory.iterdir())) == 2


def test_an_empty_spool_is_tidied_away(root: Path, address: Address) -> None:
    directory = root / (b"w" * 16).hex()
    directory.mkdir(parents=True)
    (directory / "00000000000000000000.seg").write_bytes(b"torn")
    assert drain(directory, address).is_done
    assert not directory.exists()


def test_a_spool_for_another_collector_is_let_be(store: Store, root: Path, address: Address) -> None:
    directory = _leave(root, HandWriter(destination="offline"), numbers(0, 3))
    drained = drain(directory, address, accepts=lambda identity: identity["destination"] != "offline")
    assert (drained.is_done, drained.is_elsewhere, drained.records) == (False, True, 4)
    assert directory.exists()
    assert _steps(store) == []


def test_a_torn_tail_is_not_waited_for(store: Store, root: Path, address: Address) -> None:
    directory = _leave(root, HandWriter(), numbers(0, 10))
    (segment,) = directory.glob("*.seg")
    segment.write_bytes(segment.read_bytes()[:-3])
    assert drain(directory, address).is_done
    assert _steps(store) == list(range(9))


def test_a_spool_that_the_collector_refuses_stays(root: Path, address: Address) -> None:
    directory = _leave(root, HandWriter(host="h" * 5000), numbers(0, 3))
    drained = drain(directory, address)
    assert not drained.is_done
    assert "host" in drained.problem
    assert directory.exists()


def test_without_a_collector_it_gives_up_in_time_and_keeps_everything(root: Path) -> None:
    directory = _leave(root, HandWriter(), numbers(0, 3))
    with ipc_address() as nowhere:
        drained = drain(directory, nowhere, timeout_s=0.3)
        assert "does not answer" in drained.problem
        stopped = drain(directory, nowhere, should_stop=lambda: True)
    assert (drained.is_done, stopped.is_done, stopped.problem) == (False, False, "stopped")
    assert len(list(directory.glob("*.seg"))) == 1


def test_a_drain_is_no_sign_of_life(store: Store, root: Path, address: Address) -> None:
    writer = HandWriter(pid=1, pid_start=1)
    close = events.pack(Kind.CLOSE, T0_NS, {"exit_code": 0})
    assert drain(_leave(root, writer, [*numbers(0, 3), close]), address).is_done
    with store.cursor() as cursor:
        states = cursor.execute("SELECT state FROM states ORDER BY rowid").fetchall()
    assert states == [("running",), ("finished",)]


def test_the_drainer_finds_what_is_left_and_ends_when_it_is_told(store: Store, root: Path, address: Address) -> None:
    alive, dead = HandWriter(1), HandWriter(2)
    _leave(root, alive, numbers(0, 5))
    _leave(root, dead, numbers(0, 5))
    done = threading.Event()
    drainer = Drainer((root,), address, accepts=lambda _: True, is_alive=lambda name: name == alive.name)

    async def look() -> None:
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(drainer.run)
            with anyio.fail_after(60):
                while len(_steps(store)) < 5:
                    await anyio.sleep(0.01)
            drainer.stop()
        await drainer.last_look(60.0)
        done.set()

    anyio.run(look)
    assert done.is_set()
    # The one that was thought to live has come in with the last look: its lock was free.
    assert sorted(_steps(store)) == sorted([*range(5), *range(5)])
    assert list(find_spools(root)) == []
