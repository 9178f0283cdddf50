"""The desk: who answers is waited for, who lives is never signalled, and a run that stands still is asked once."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any

import anyio
import pytest
from tests.support.pipelines import Peer, ipc_address, peer, running
from tests.support.writers import T0_NS, HandWriter

from allranks_bus import events, processes
from allranks_bus.events import Kind
from allranks_bus.wire import Command, Down
from allranks_collector import stacks_desk
from allranks_collector.health import State
from allranks_collector.queries.select import find_run
from allranks_collector.queries.stacks import newest_stacks
from allranks_collector.stack_signals import NoStacks, signalled_stacks
from allranks_collector.stacks_desk import StacksDesk
from allranks_collector.store import Store
from allranks_collector.testing import DatabaseBuilder

pytestmark = pytest.mark.anyio

_THREADS = [{"name": "MainThread", "id": 1, "main": True, "frames": [["train.py", 88, "step"]]}]


def _stacks(store: Store, run: str = "run-1") -> dict[str, Any]:
    with store.cursor() as cursor:
        return newest_stacks(cursor, find_run(cursor, run))


async def _begin(one: Peer) -> None:
    await one.meet()
    one.send(one.writer.batch([one.writer.open()]))
    await one.hear_position(1)


async def _hear_command(one: Peer) -> Command:
    while True:
        message = await one.hear()
        if isinstance(message, Command):
            return message


async def test_an_answer_is_stored_once_and_ends_the_asking(store: Store) -> None:
    with ipc_address() as address:
        async with running(store, address) as pipeline:
            with peer(address, HandWriter()) as one:
                await _begin(one)
                async with anyio.create_task_group() as asking:
                    asking.start_soon(pipeline.stacks.ask, 1, "run-1")
                    command = await _hear_command(one)
                    assert command.name == "stacks"
                    told = {**command.arguments, "how": "asked", "threads": _THREADS}
                    batch = one.writer.batch([events.pack(Kind.STACKS, T0_NS, told)])
                    one.send(batch)
                    one.send(batch)
                found = _stacks(store)
    assert (found["text"], found["ranks"][0]["how"]) == ("rank 0 in step train.py:88", "asked")
    assert found["ranks"][0]["threads"] == _THREADS
    with store.cursor() as cursor:
        assert cursor.execute("SELECT count(*) FROM stacks").fetchall() == [(1,)]


async def test_stacks_under_a_name_that_nobody_gave_are_passed_over(store: Store) -> None:
    with ipc_address() as address:
        async with running(store, address):
            with peer(address, HandWriter()) as one:
                await _begin(one)
                payload = events.pack(Kind.STACKS, T0_NS, {"token": "x", "threads": _THREADS})
                for _ in range(3):
                    one.send(one.writer.batch([payload], first=1))
                await one.hear_position(2)
    assert _stacks(store)["ranks"] == []


class _Desk:
    """A desk whose messages go nowhere, and what it has said."""

    def __init__(self, store: Store) -> None:
        self.asked: list[bytes] = []
        self.asked_at: list[float] = []
        self.told: list[tuple[str, str]] = []
        self.lively: set[int] = set()
        self.heard_once: set[int] = set()
        self._beats = 2**62
        self.desk = StacksDesk(
            store,
            tell=self._tell,
            publish=self._publish,
            writing=anyio.CapacityLimiter(1),
            heard_ns=self._hear,
        )

    def _tell(self, writer: bytes, _: Down) -> None:
        self.asked_at.append(time.monotonic())
        self.asked.append(writer)

    async def has_asked(self, times: int) -> None:
        """Returns once so many have been asked."""
        with anyio.fail_after(60):
            while len(self.asked) < times:
                await anyio.sleep(0.02)

    def _hear(self, writer: int) -> int | None:
        self._beats += writer in self.lively
        if writer in self.lively:
            return self._beats
        return 2**62 if writer in self.heard_once else None

    def _publish(self, topic: str, run: str, _: Mapping[str, Any]) -> None:
        self.told.append((topic, run))


@contextlib.asynccontextmanager
async def _desk(store: Store) -> AsyncGenerator[_Desk]:
    made = _Desk(store)
    async with anyio.create_task_group() as task_group:
        task_group.start_soon(made.desk.run)
        await anyio.wait_all_tasks_blocked()
        yield made
        task_group.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setattr(stacks_desk, "_GATHER_S", 0.02)
    monkeypatch.setattr(stacks_desk, "_LATE_S", 0.05)


async def test_each_rank_without_an_answer_is_told_with_the_reason(
    store: Store, build: DatabaseBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacks_desk, "ANSWER_S", 0.05)
    run = build.run()
    lives, was_heard = build.writer(run, 0), build.writer(run, 1)
    build.writer(run, 2, state="dead")
    build.writer(run, 1, role="child")
    async with _desk(store) as made:
        made.lively.add(lives)
        made.heard_once.add(was_heard)
        assert await made.desk.ask(run, "run-1") is not None
    found = _stacks(store)
    assert {rank["rank"]: rank["reason"] for rank in found["ranks"]} == {
        0: "it lives, and does not answer",
        1: "no answer, and its process cannot be reached from the collector",
        2: "dead",
    }
    assert len(made.asked) == 2
    assert made.told == [("stacks", "run-1")]


async def test_who_asks_twice_at_once_gets_one_answer_and_only_the_ranks_that_are_meant_are_asked(
    store: Store, build: DatabaseBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacks_desk, "ANSWER_S", 0.05)
    run = build.run()
    for rank in range(3):
        build.writer(run, rank)
    tokens: list[str | None] = []
    async with _desk(store) as made:

        async def ask() -> None:
            tokens.append(await made.desk.ask(run, "run-1", {1}))

        async with anyio.create_task_group() as both:
            both.start_soon(ask)
            both.start_soon(ask)
        assert await made.desk.ask(run, "run-1", {7}) is None
    assert len(made.asked) == 1
    assert [rank["rank"] for rank in _stacks(store)["ranks"]] == [1]
    assert tokens[0] is not None
    assert tokens[0] == tokens[1]


async def test_a_run_is_asked_once_when_most_of_its_ranks_stand_still(
    store: Store, build: DatabaseBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacks_desk, "ANSWER_S", 0.02)
    run = build.run()
    writers = [build.writer(run, rank) for rank in range(3)]

    async def stalls(made: _Desk, writer: int) -> None:
        build.state(writer, "stalled")
        made.desk.changed(run, "run-1", State.STALLED)
        await anyio.sleep(0.3)

    async with _desk(store) as made:
        await stalls(made, writers[0])
        assert made.asked == []  # one of three
        await stalls(made, writers[1])
        await made.has_asked(3)
        await stalls(made, writers[2])  # the same stall
        assert len(made.asked) == 3


async def test_a_run_that_stands_still_again_so_soon_is_asked_when_it_has_stayed_so(
    store: Store, build: DatabaseBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacks_desk, "ANSWER_S", 0.02)
    monkeypatch.setattr(stacks_desk, "_GATHER_S", 0.05)
    monkeypatch.setattr(stacks_desk, "_NOT_AGAIN_S", 1.5)
    run = build.run()
    build.state(build.writer(run, 0), "stalled")
    async with _desk(store) as made:
        made.desk.changed(run, "run-1", State.STALLED)
        await made.has_asked(1)
        for _ in range(3):  # each time it moves, and stands still again
            made.desk.changed(run, "run-1", State.RUNNING)
            made.desk.changed(run, "run-1", State.STALLED)
        await made.has_asked(2)
        assert made.asked_at[1] - made.asked_at[0] > 1.0
        await anyio.sleep(2.0)  # the same stall
        assert len(made.asked) == 2


async def test_a_run_that_is_removed_takes_its_stacks_with_it(store: Store, build: DatabaseBuilder) -> None:
    run, other = build.run(), build.run("run-2")
    for number in (run, other):
        with store.transaction() as connection:
            connection.execute("INSERT INTO stacks VALUES (?, 1, 0, ?, 0, 'none', '{}')", [number, "0" * 32])
    store.remove_run(run)
    with store.cursor() as cursor:
        assert cursor.execute("SELECT run FROM stacks").fetchall() == [(other,)]


async def test_a_process_that_has_not_offered_it_gets_no_signal() -> None:
    # Not this process: a test of the SDK may have run in it, and offered it.
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        me = processes.current()
        its = replace(me, pid=child.pid, start=processes.start_time(child.pid) or 0)
        with pytest.raises(NoStacks, match="no handler for the signal"):
            await signalled_stacks(its)
        with pytest.raises(NoStacks, match="gone"):
            await signalled_stacks(replace(its, start=its.start + 1))
        child.kill()
