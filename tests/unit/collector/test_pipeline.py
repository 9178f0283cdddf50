"""The pipeline on real sockets, on asyncio and on trio: stored before acked, and nobody is forgotten."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Callable, Generator, Mapping
from typing import Any, cast

import anyio
import anyio.to_thread
import duckdb
import msgpack
import pytest
from tests.support.pipelines import Peer, ipc_address, peer, running
from tests.support.writers import T0_NS, HandWriter, number, numbers

from allranks_bus import events, processes
from allranks_bus.addresses import Address
from allranks_bus.events import Kind
from allranks_bus.wire import Ack, Refused
from allranks_collector import watch
from allranks_collector.pace import Patience
from allranks_collector.pipeline import Pipeline
from allranks_collector.store import DiskFull, Store

pytestmark = pytest.mark.anyio

_CLOSE = events.pack(Kind.CLOSE, T0_NS, {"exit_code": None})


@pytest.fixture
def address() -> Generator[Address]:
    with ipc_address() as address:
        yield address


def _steps(store: Store) -> list[int]:
    with store.cursor() as cursor:
        return [step for (step,) in cursor.execute("SELECT step FROM points ORDER BY rowid").fetchall()]


def _states(store: Store) -> list[tuple[str, str | None]]:
    with store.cursor() as cursor:
        statement = "SELECT state, json_extract_string(detail, '$.reason') FROM states ORDER BY rowid"
        return cursor.execute(statement).fetchall()


async def _until(fact: Callable[[], bool]) -> None:
    with anyio.fail_after(60):
        while not await anyio.to_thread.run_sync(fact):
            await anyio.sleep(0.01)


async def test_what_is_acked_is_stored(store: Store, address: Address) -> None:
    writer = HandWriter()
    async with running(store, address) as pipeline:
        with peer(address, writer) as one:
            assert (await one.meet()).next_seq == 0
            one.send(writer.batch([writer.open(), *numbers(0, 10)]))
            answer = await one.hear()
            assert isinstance(answer, Ack)
            assert (answer.next_seq, answer.collector, _steps(store)) == (11, store.instance, list(range(10)))
            assert pipeline.counters.events == 10


async def test_a_writer_that_waits_to_end_does_not_wait_for_others(store: Store, address: Address) -> None:
    one, two = HandWriter(1), HandWriter(2)
    async with running(store, address, commit_interval_s=3600.0):
        with peer(address, one) as first, peer(address, two) as second:
            second.beat()  # nobody is answered within the hour but who waits for it
            first.send(one.batch([one.open(), number(1)]))
            second.send(two.batch([two.open(), number(2)], is_urgent=True))
            await _until(lambda: len(_steps(store)) == 2)


async def test_a_beat_is_answered_with_what_is_stored(store: Store, address: Address) -> None:
    writer = HandWriter()
    async with running(store, address):
        with peer(address, writer) as one:
            await one.meet()
            one.send(writer.batch([writer.open(), *numbers(0, 4)]))
            await one.hear_position(5)
            one.beat(step=3)
            await one.hear_position(5)
    async with running(store, address):  # which knows it from the database alone
        with peer(address, writer) as one:
            assert (await one.meet()).next_seq == 5


async def test_bytes_that_are_no_message_are_counted_and_cost_nobody_else(store: Store, address: Address) -> None:
    writer = HandWriter()
    async with running(store, address) as pipeline:
        with peer(address, writer) as one:
            await one.meet()
            one.send_frames(b"")
            one.send_frames(b"\xc1", b"")
            one.send_frames(b"\x93\x01\x02\x03", b"", b"")
            one.send(writer.batch([writer.open()]))
            await one.hear_position(1)
            assert pipeline.counters.rejected == 3


async def test_a_writer_of_another_version_is_told_so_once(store: Store, address: Address) -> None:
    writer = HandWriter()
    async with running(store, address) as pipeline:
        with peer(address, writer) as one:
            await one.meet()
            for _ in range(3):
                one.send_frames(cast("bytes", msgpack.packb((2, 1, writer.name, 0, 1, 0, 1))), b"")
            one.beat()
            answers = [await one.hear(), await one.hear()]
            assert [type(answer) for answer in answers] == [Refused, Ack]
            assert pipeline.counters.rejected == 3


@pytest.fixture
def full_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """While it is set, no transaction can be committed."""
    is_full = threading.Event()
    transaction = store.transaction

    @contextlib.contextmanager
    def failing() -> Generator[duckdb.DuckDBPyConnection]:
        with transaction() as connection:
            yield connection
            if is_full.is_set():
                raise DiskFull(store.path)

    monkeypatch.setattr(store, "transaction", failing)
    return is_full


async def test_a_full_disk_is_said_and_acks_nothing_until_there_is_room(
    store: Store, address: Address, full_disk: threading.Event
) -> None:
    writer = HandWriter()
    async with running(store, address) as pipeline:
        with peer(address, writer) as one:
            await one.meet()
            first = writer.batch([writer.open(), *numbers(0, 4)])
            one.send(first)
            await one.hear_position(5)
            full_disk.set()
            again = writer.batch(numbers(4, 8))
            one.send(again)
            await _until(lambda: "no space left" in pipeline.problem)
            one.beat()
            await one.hear_position(5)
            full_disk.clear()
            one.send(again)
            await one.hear_position(9)
            assert pipeline.problem == ""
            assert _steps(store) == list(range(8))


async def test_a_state_that_could_not_be_stored_is_stored_once_there_is_room(
    store: Store, address: Address, full_disk: threading.Event
) -> None:
    writer = HandWriter()
    async with running(store, address, patience=Patience(silent_s=0.2)) as pipeline:
        with peer(address, writer) as one:
            await one.meet()
            one.send(writer.batch([writer.open()]))
            await one.hear_position(1)
            await _until(lambda: len(_states(store)) == 1)
            full_disk.set()
            await _until(lambda: "no space left" in pipeline.problem)  # it is silent, and that cannot be stored
            full_disk.clear()
            await _until(lambda: len(_states(store)) == 2)
    assert [state for state, _ in _states(store)] == ["running", "unreachable"]


async def test_who_ran_before_this_host_was_started_again_is_dead_and_not_only_silent(
    store: Store, address: Address
) -> None:
    writer = HandWriter(host=os.uname().nodename, boot_id="another", pid_start=7)
    with peer(address, writer) as one:
        async with running(store, address, patience=Patience(silent_s=0.1)):
            await one.meet()
            one.send(writer.batch([writer.open()]))
            await one.hear_position(1)
            await _until(lambda: _states(store)[-1:] != [] and _states(store)[-1][0] == "dead")
    assert [state for state, _ in _states(store)] == ["running", "dead"]


async def test_who_was_given_up_is_running_again_once_it_is_heard_by_a_later_collector_too(
    store: Store, address: Address
) -> None:
    writer = HandWriter()
    with peer(address, writer) as one:
        async with running(store, address, patience=Patience(silent_s=0.1, dead_s=0.2)):
            await one.meet()
            one.send(writer.batch([writer.open()]))
            await one.hear_position(1)
            await _until(lambda: _states(store)[-1:] != [] and _states(store)[-1][0] == "dead")
        async with running(store, address):
            await one.meet()
            await _until(lambda: _states(store)[-1][0] == "running")
    assert [state for state, _ in _states(store)] == ["running", "unreachable", "dead", "running"]


def _process(process: subprocess.Popen[bytes]) -> Mapping[str, Any]:
    return {
        "pid": process.pid,
        "pid_start": processes.start_time(process.pid),
        "boot_id": processes.boot_id(),
        "pid_ns": processes.pid_namespace(),
    }


@pytest.fixture
def process() -> Generator[subprocess.Popen[bytes]]:
    """A process that sleeps until it is killed."""
    with subprocess.Popen(["sleep", "300"]) as process:
        yield process
        process.kill()


async def test_the_death_of_a_process_is_stored_with_its_signal(
    store: Store, address: Address, process: subprocess.Popen[bytes]
) -> None:
    writer = HandWriter(**_process(process))
    notes: list[tuple[str, str, Mapping[str, Any]]] = []

    def note(topic: str, run: str, data: Mapping[str, Any]) -> None:
        notes.append((topic, run, data))

    async with running(store, address, publish=note) as pipeline:
        with peer(address, writer) as one:
            await one.meet()
            one.send(writer.batch([writer.open(), number(7)]))
            await one.hear_position(2)
            assert pipeline.watch.is_watched(writer.name)
            process.kill()
            await _until(lambda: len(_states(store)) == 2)
            assert not pipeline.watch.is_watched(writer.name)
            assert pipeline.watch.live_writers == 0
    assert _states(store) == [("running", None), ("dead", "killed by SIGKILL")]
    assert ("ranks", "run-1", {"rank": 0, "state": "dead"}) in notes
    assert ("metrics", "run-1", {"last_step": 7}) in notes


async def test_who_closed_well_and_exited_badly_has_failed(
    store: Store, address: Address, process: subprocess.Popen[bytes]
) -> None:
    writer = HandWriter(**_process(process))
    async with running(store, address):
        with peer(address, writer) as one:
            await one.meet()
            one.send(writer.batch([writer.open(), _CLOSE]))
            await one.hear_position(2)
            await _until(lambda: len(_states(store)) == 2)
            process.kill()
            await _until(lambda: len(_states(store)) == 3)
    assert [state for state, _ in _states(store)] == ["running", "finished", "failed"]


@pytest.fixture
def leaving() -> Generator[subprocess.Popen[bytes]]:
    """A process that ends with exit code 0 once its standard input is closed."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        yield process
        process.kill()


async def _leave(store: Store, pipeline: Pipeline, one: Peer, process: subprocess.Popen[bytes]) -> None:
    """Opens a writer, and lets its process end well."""
    writer = one.writer
    await one.meet()
    one.send(writer.batch([writer.open()]))
    await one.hear_position(1)
    await _until(lambda: len(_states(store)) == 1)
    assert process.stdin is not None
    process.stdin.close()
    await _until(lambda: not pipeline.watch.is_watched(writer.name))  # its spool may be drained


async def test_who_ended_well_is_not_called_dead_while_its_close_is_on_its_way(
    store: Store, address: Address, leaving: subprocess.Popen[bytes]
) -> None:
    writer = HandWriter(**_process(leaving))
    async with running(store, address) as pipeline:
        with peer(address, writer) as one:
            await _leave(store, pipeline, one, leaving)
            one.send(writer.batch([_CLOSE]))
            await one.hear_position(2)
    assert [state for state, _ in _states(store)] == ["running", "finished"]


async def test_who_ended_well_and_never_closes_is_dead(
    store: Store, address: Address, leaving: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_CLOSE_COMES_S", 0.1)
    writer = HandWriter(**_process(leaving))
    async with running(store, address) as pipeline:
        with peer(address, writer) as one:
            await _leave(store, pipeline, one, leaving)
            await _until(lambda: len(_states(store)) == 2)
    assert _states(store)[-1] == ("dead", "exited with code 0")


async def test_a_death_that_is_seen_while_the_close_is_stored_does_not_come_after_it(
    store: Store, address: Address, process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = HandWriter(**_process(process))
    is_stored, goes_on = threading.Event(), threading.Event()
    transaction = store.transaction

    @contextlib.contextmanager
    def slow() -> Generator[duckdb.DuckDBPyConnection]:
        with transaction() as connection:
            yield connection
        if _states(store)[-1:] == [("failed", "ValueError: no")]:
            is_stored.set()
            goes_on.wait(60)

    async with running(store, address) as pipeline:
        with peer(address, writer) as one:
            await one.meet()
            one.send(writer.batch([writer.open()]))
            await one.hear_position(1)
            monkeypatch.setattr(store, "transaction", slow)
            exception = {"type": "ValueError", "message": "no", "traceback": ""}
            one.send(writer.batch([events.pack(Kind.CLOSE, T0_NS, {"exception": exception})]))
            await _until(is_stored.is_set)
            process.kill()
            await _until(lambda: not pipeline.watch.is_watched(writer.name))
            goes_on.set()
            await one.hear_position(2)
            await _until(lambda: pipeline.pending_bytes == 0)
    assert _states(store)[-1] == ("failed", "ValueError: no")


async def test_who_exited_badly_and_whose_close_came_in_later_has_failed(
    store: Store, address: Address, process: subprocess.Popen[bytes]
) -> None:
    writer = HandWriter(**_process(process))
    async with running(store, address) as pipeline:
        with peer(address, writer) as one:
            await one.meet()
            one.send(writer.batch([writer.open()]))
            await one.hear_position(1)
            process.kill()
            await _until(lambda: not pipeline.watch.is_watched(writer.name))
            one.send(writer.batch([_CLOSE]))  # by whoever drains its spool
            await one.hear_position(2)
    assert _states(store)[-1] == ("failed", "killed by SIGKILL")


async def test_a_new_collector_goes_on_watching_who_lived(
    store: Store, address: Address, process: subprocess.Popen[bytes]
) -> None:
    writers = [HandWriter(1, **_process(process)), HandWriter(2, rank=1, world_size=2)]
    async with running(store, address):
        for writer in writers:
            with peer(address, writer) as one:
                await one.meet()
                one.send(writer.batch([writer.open()]))
                await one.hear_position(1)
    async with running(store, address) as pipeline:
        assert [pipeline.watch.is_watched(writer.name) for writer in writers] == [True, True]
        process.kill()
        await _until(lambda: not pipeline.watch.is_watched(writers[0].name))
        assert pipeline.watch.is_watched(writers[1].name)
    assert [state for state, _ in _states(store)] == ["running", "running", "dead"]


async def test_what_was_received_is_stored_at_the_end_also_of_a_writer_that_is_new(
    store: Store, address: Address, process: subprocess.Popen[bytes]
) -> None:
    writer = HandWriter(**_process(process))
    async with running(store, address, commit_interval_s=3600.0) as pipeline:
        with peer(address, writer) as one:
            one.send(writer.batch([writer.open(), *numbers(0, 5)]))
            await _until(lambda: pipeline.pending_bytes > 0)
    assert _steps(store) == list(range(5))
    assert _states(store) == [("running", None)]


async def _beat_on(one: Peer) -> None:
    while True:
        await anyio.sleep(0.1)
        one.beat(step=1)


class _Gate:
    """Holds commits up for as long as it is closed."""

    def __init__(self, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        commit = pipeline.ingest.commit

        def held(*arguments: Any, **more: Any) -> Any:
            assert self.open.wait(60)
            return commit(*arguments, **more)

        monkeypatch.setattr(pipeline.ingest, "commit", held)


async def test_what_is_pending_is_bounded_and_nobody_is_blamed_for_the_wait(
    store: Store, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = HandWriter()
    patience = Patience(silent_s=1.0)
    async with running(store, address, patience=patience, max_pending_bytes=100_000) as pipeline:
        with peer(address, writer) as one:
            await one.meet()
            one.send(writer.batch([writer.open()]))
            await one.hear_position(1)
            gate = _Gate(pipeline, monkeypatch)
            for begin in range(0, 40_000, 1000):
                one.send(writer.batch(numbers(begin, begin + 1000)))
            most = 0
            for _ in range(30):  # 3 s without a word from anybody
                await anyio.sleep(0.1)
                one.beat(step=1)
                most = max(most, pipeline.pending_bytes)
            gate.open.set()
            async with anyio.create_task_group() as beating:
                beating.start_soon(_beat_on, one)
                await one.hear_position(40_001)
                beating.cancel_scope.cancel()
    # The bound, and what one look at the sockets may bring.
    assert most < 100_000 + 5 * 1024 * 1024
    assert _steps(store) == list(range(40_000))
    assert [state for state, _ in _states(store)] == ["running"]


async def test_messages_without_bytes_take_room_too(
    store: Store, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = HandWriter()
    async with running(store, address, max_pending_bytes=100_000) as pipeline:
        gate = _Gate(pipeline, monkeypatch)
        with peer(address, writer) as one:
            for _ in range(20_000):
                one.send(writer.batch([b"x"], body=b""))
            await _until(lambda: pipeline.pending_bytes > 100_000)
            taken = pipeline.counters.batches
            await anyio.sleep(0.3)
            assert pipeline.counters.batches == taken < 20_000
            gate.open.set()


async def test_a_run_that_is_removed_is_watched_no_more(store: Store, address: Address) -> None:
    writer = HandWriter()
    async with running(store, address) as pipeline:
        with peer(address, writer) as one:
            await one.meet()
            one.send(writer.batch([writer.open(), number(1)]))
            await one.hear_position(2)
            await pipeline.remove_run(1)
            assert not pipeline.watch.is_watched(writer.name)
            assert _steps(store) == []
            # It lives, and comes back with all that it has.
            one.send(writer.batch([number(2)]))
            await _until(lambda: pipeline.counters.commits > 2)
            one.send(writer.batch([writer.open(), number(1), number(2)], first=0))
            await one.hear_position(3)
            assert pipeline.watch.is_watched(writer.name)
    assert _steps(store) == [1, 2]
