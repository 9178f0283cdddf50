"""The pipeline puts all ranks on one clock, and stores what beats tell of kills for want of memory."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Generator
from typing import Any

import anyio
import anyio.to_thread
import pytest
from tests.support.pipelines import Peer, ipc_address, peer, running
from tests.support.writers import HandWriter

from allranks_bus import events, processes
from allranks_bus.addresses import Address
from allranks_bus.events import Kind
from allranks_bus.wire import Beat, pack_beat
from allranks_collector.queries import find_run
from allranks_collector.queries.why import why
from allranks_collector.store import Store

pytestmark = pytest.mark.anyio

S = 10**9
OFF_NS = 300 * S


@pytest.fixture
def address() -> Generator[Address]:
    with ipc_address() as address:
        yield address


def _rows(store: Store, statement: str) -> list[tuple[Any, ...]]:
    with store.cursor() as cursor:
        return cursor.execute(statement).fetchall()


async def _until(fact: Callable[[], bool]) -> None:
    with anyio.fail_after(60):
        while not await anyio.to_thread.run_sync(fact):
            await anyio.sleep(0.01)


def _open(writer: HandWriter, off_ns: int) -> bytes:
    return events.pack(Kind.OPEN, time.time_ns() + off_ns, writer.identity)


def _beat(one: Peer, off_ns: int, **status: Any) -> None:
    """As a writer with a clock that is off."""
    beat = Beat(one.writer.name, one.writer.seq, 0, time.time_ns() + off_ns, status)
    one.send_frames(*pack_beat(beat))


def _close(writer: HandWriter, time_ns: int) -> bytes:
    exception = {"type": "ValueError", "message": f"of rank {writer.identity['rank']}", "traceback": ""}
    return events.pack(Kind.CLOSE, time_ns, {"exit_code": 1, "exception": exception})


async def test_of_two_that_fail_the_first_is_named_though_its_clock_is_five_minutes_ahead(
    store: Store, address: Address
) -> None:
    ahead = HandWriter(1, rank=0, world_size=2, host="ahead")
    right = HandWriter(2, rank=1, world_size=2, host="right")
    async with running(store, address):
        with peer(address, ahead) as one, peer(address, right) as two:
            for side, off_ns in ((one, OFF_NS), (two, 0)):
                _beat(side, off_ns)
                await side.meet()
                side.send(side.writer.batch([_open(side.writer, off_ns)]))
                await side.hear_position(1)
                _beat(side, off_ns)
            await _until(lambda: _rows(store, "SELECT count(DISTINCT writer) FROM clocks") == [(2,)])
            now_ns = time.time_ns()
            for side, time_ns in ((one, now_ns + OFF_NS), (two, now_ns + 10 * S)):
                side.send(side.writer.batch([_close(side.writer, time_ns)]))
                await side.hear_position(2)

            def ended() -> bool:
                return _rows(store, "SELECT count(*) FROM states WHERE state = 'failed'") == [(2,)]

            await _until(ended)
    with store.cursor() as cursor:
        found = why(cursor, find_run(cursor, "run-1"))
    assert (found["first"]["rank"], found["first"]["host"]) == (0, "ahead")
    assert 5 < found["followers"][0]["after"] < 15
    offsets = dict(_rows(store, "SELECT host, max(offset_ns) FROM clocks JOIN writers USING (writer) GROUP BY host"))
    assert abs(offsets["ahead"] + OFF_NS) < 30 * S
    assert abs(offsets["right"]) < 30 * S


async def test_the_clock_of_a_writer_is_known_that_has_ended_before_its_second_beat(
    store: Store, address: Address
) -> None:
    writer = HandWriter()
    async with running(store, address):
        with peer(address, writer) as one:
            _beat(one, OFF_NS)  # which asks where to begin, as that of every publisher
            await one.meet()
            one.send(writer.batch([_open(writer, OFF_NS), _close(writer, time.time_ns() + OFF_NS)]))
            await one.hear_position(2)
            await _until(lambda: _rows(store, "SELECT count(*) FROM clocks") == [(1,)])
    ((offset_ns,),) = _rows(store, "SELECT offset_ns FROM clocks")
    assert abs(offset_ns + OFF_NS) < 30 * S


async def test_a_kill_for_want_of_memory_that_a_beat_tells_is_an_event(store: Store, address: Address) -> None:
    writer = HandWriter()
    async with running(store, address):
        with peer(address, writer) as one:
            await one.meet()
            one.send(writer.batch([_open(writer, 0)]))
            await one.hear_position(1)
            for count in (2, 2, 3):
                _beat(one, 0, oom=count)
            statement = "SELECT body FROM events WHERE kind = 'oom'"
            await _until(lambda: _rows(store, statement) == [('{"killed": 1}',)])


async def test_a_death_that_the_collector_did_not_see_is_told_so(store: Store, address: Address) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    pid_start = processes.start_time(gone.pid)
    gone.wait()
    writer = HandWriter(
        pid=gone.pid, pid_start=pid_start, boot_id=processes.boot_id(), pid_ns=processes.pid_namespace()
    )
    async with running(store, address):
        with peer(address, writer) as one:
            await one.meet()
            one.send(writer.batch([_open(writer, 0)]))
            await one.hear_position(1)
            statement = "SELECT detail ->> '$.unseen' FROM states WHERE state = 'dead'"
            await _until(lambda: _rows(store, statement) == [("true",)])
