"""Notes reach those who watch; many become one, and none waits without bound."""

from __future__ import annotations

import itertools
import math
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allranks_collector.live import INTERVAL_S, MAX_KEYS, MAX_WAITING, Hub, Note, Waiting

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def all_of(waiting: Waiting, now: float) -> list[Note]:
    return list(iter(lambda: waiting.take(now), None))


# -- waiting notes, pure ----------------------------------------------------------------------------------


def test_notes_go_in_the_order_in_which_their_things_last_changed() -> None:
    waiting = Waiting()
    for topic, run in (("runs", "a"), ("ranks", "a"), ("runs", "b"), ("runs", "a")):
        waiting.put(topic, run, {"run": run})
    assert [(note.topic, note.data["run"]) for note in all_of(waiting, 0.0)] == [
        ("ranks", "a"),
        ("runs", "b"),
        ("runs", "a"),
    ]


def test_metrics_notes_of_a_run_become_one_with_all_keys() -> None:
    waiting = Waiting()
    waiting.put("metrics", "a", {"run": "a", "last_step": 7, "keys": ["loss"]})
    waiting.put("metrics", "a", {"run": "a", "last_step": 5, "keys": ["acc", "loss"]})
    assert all_of(waiting, 0.0) == [Note("metrics", {"run": "a", "last_step": 7, "keys": ["acc", "loss"]})]


@pytest.mark.parametrize("first", [None, [str(number) for number in range(MAX_KEYS)]])
def test_too_many_keys_stand_for_any(first: list[str] | None) -> None:
    waiting = Waiting()
    waiting.put("metrics", "a", {"run": "a", "keys": first})
    waiting.put("metrics", "a", {"run": "a", "keys": ["one more"]})
    (note,) = all_of(waiting, 0.0)
    assert note.data["keys"] is None


def test_metrics_wait_for_their_interval_and_others_do_not() -> None:
    waiting = Waiting()
    interval = INTERVAL_S["metrics"]
    for now in (0.0, 0.1):
        waiting.put("metrics", "a", {"run": "a"})
        waiting.put("runs", "a", {"run": "a"})
        all_of(waiting, now)
    assert waiting.due() == interval
    assert waiting.take(interval - 0.01) is None
    assert waiting.take(interval) == Note("metrics", {"run": "a"})
    assert waiting.due() == math.inf


@given(st.lists(st.tuples(st.sampled_from(["metrics", "runs"]), st.sampled_from("ab"), st.floats(0, 0.2))))
def test_at_most_four_metrics_notes_a_second_per_run(puts: list[tuple[str, str, float]]) -> None:
    waiting = Waiting()
    now, sent = 0.0, dict[tuple[str, Any], list[float]]()
    for topic, run, pause in puts:
        now += pause
        waiting.put(topic, run, {"run": run})
        for note in all_of(waiting, now):
            sent.setdefault((note.topic, note.data["run"]), []).append(now)
    for run in "ab":
        times = sent.get(("metrics", run), [])
        assert all(later - earlier >= 0.25 - 1e-9 for earlier, later in itertools.pairwise(times))


def test_no_more_than_the_bound_wait_and_the_newest_stay() -> None:
    waiting = Waiting()
    for number in range(MAX_WAITING + 10):
        waiting.put("runs", str(number), {"run": str(number)})
    notes = all_of(waiting, 0.0)
    assert len(notes) == MAX_WAITING
    assert notes[-1].data["run"] == str(MAX_WAITING + 9)


# -- viewers ----------------------------------------------------------------------------------------------


async def test_a_viewer_of_one_run_gets_that_run_only() -> None:
    hub = Hub()
    async with hub.subscribe("a") as viewer:
        hub.publish("runs", "b", {})
        hub.publish("runs", "a", {"state": "finished"})
        with anyio.fail_after(60):
            assert await viewer.receive() == Note("runs", {"run": "a", "state": "finished"})


async def test_a_viewer_that_waits_is_woken() -> None:
    hub = Hub()
    got: list[Note] = []

    async def view(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        async with hub.subscribe() as viewer:
            task_status.started()
            got.append(await viewer.receive())

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            await tasks.start(view)
            await anyio.wait_all_tasks_blocked()
            hub.publish("events", "a", {})
    assert got == [Note("events", {"run": "a"})]


async def test_every_viewer_gets_its_own() -> None:
    hub = Hub()
    async with hub.subscribe() as one, hub.subscribe("a") as other:
        assert hub.viewers == 2
        hub.publish("runs", "a", {})
        with anyio.fail_after(60):
            assert await one.receive() == await other.receive()
    assert hub.viewers == 0


async def test_a_held_note_comes_when_its_interval_is_over() -> None:
    hub = Hub()
    async with hub.subscribe() as viewer:
        with anyio.fail_after(60):
            for step in (1, 2):
                hub.publish("metrics", "a", {"last_step": step})
                note = await viewer.receive()
    assert note.data["last_step"] == 2


async def test_closing_ends_the_streams_that_are_and_that_come() -> None:
    hub = Hub()
    async with hub.subscribe() as viewer:
        hub.close()
        with pytest.raises(anyio.EndOfStream):
            await viewer.receive()
    async with hub.subscribe() as late:
        with pytest.raises(anyio.EndOfStream):
            await late.receive()
