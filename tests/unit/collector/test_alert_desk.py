"""The desk: what is worth an alert goes to every target and becomes an event; who hangs delays nobody."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio
import pytest

from allranks_collector.alerts.desk import AlertDesk
from allranks_collector.alerts.rules import CHOICES, DEFAULT_RULES, Message
from allranks_collector.alerts.targets import Answer, Target
from allranks_collector.rows import jsonable
from allranks_collector.store import Store
from allranks_collector.testing import SECOND_NS, T0_NS, DatabaseBuilder

pytestmark = pytest.mark.anyio

_HOUR_NS = 3_600_000_000_000
_WITHIN_S = 60.0


@dataclass
class Told:
    """What the targets got, and the events that were kept."""

    desk: AlertDesk
    sent: list[tuple[str, Message]] = field(default_factory=list[tuple[str, Message]])
    events: list[tuple[str, int | None, Mapping[str, Any]]] = field(
        default_factory=list[tuple[str, "int | None", Mapping[str, Any]]]
    )

    @property
    def titles(self) -> list[str]:
        return [message.title for _, message in self.sent]


async def _until(fact: Callable[[], object]) -> None:
    with anyio.fail_after(_WITHIN_S):
        while not fact():
            await anyio.sleep(0.01)


@contextlib.asynccontextmanager
async def _desk(
    store: Store,
    *names: str,
    answer: Callable[[str], str] = lambda _: "",
    rules: tuple[str, ...] = DEFAULT_RULES,
    no_data_s: float | None = None,
    interval_s: float = 600.0,
) -> AsyncGenerator[Told]:
    def send(target: Target, message: Message, deadline_s: float, is_given_up: Callable[[], bool]) -> Answer:
        assert deadline_s == 10.0
        told.sent.append((target.name, message))
        problem = answer(target.name)
        while problem == "hang" and not is_given_up():
            time.sleep(0.01)
        return Answer(problem)

    targets = [Target(name, (), lambda _: b"") for name in names]
    desk = AlertDesk(
        store,
        targets,
        rules=rules,
        interval_s=interval_s,
        no_data_s=no_data_s,
        page="http://h:1",
        gather_s=0.1,
        send=send,
        waits_s=(0.05,),
    )
    await desk.resume()
    told = Told(desk)

    def keep(run: int, run_id: str, writer: int | None, kind: str, body: Mapping[str, Any]) -> None:
        assert run_id == "r1"
        told.events.append((kind, writer, body))
        with store.transaction() as connection:
            text = json.dumps(jsonable(body))
            connection.execute(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)",
                [len(told.events), run, writer, time.time_ns(), kind, text],
            )

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(partial(desk.run, keep))
        yield told
        task_group.cancel_scope.cancel()


def _a_run(build: DatabaseBuilder, *, at_ns: int | None = None) -> tuple[int, list[int]]:
    run = build.run("r1")
    writers = [build.writer(run, rank, world_size=4, host=f"node-{rank}") for rank in range(4)]
    with build.store.transaction() as connection:
        connection.execute("UPDATE positions SET last_step = 7, last_ns = ?", [at_ns or time.time_ns()])
    return run, writers


def _now_s() -> float:
    return (time.time_ns() - T0_NS) / SECOND_NS


@pytest.fixture
def ranks(build: DatabaseBuilder) -> tuple[int, list[int]]:
    """A run `r1` of four ranks on node-0 …, each at step 7 with a recent record; its number and theirs."""
    return _a_run(build)


async def test_ranks_that_die_together_are_one_message_to_every_target(
    store: Store, ranks: tuple[int, list[int]]
) -> None:
    run, writers = ranks
    async with _desk(store, "a", "b") as told:
        for rank, writer in enumerate(writers):
            told.desk.met(run, "r1", writer, 1)
            told.desk.changed(run, writer, rank, "dead", "killed by SIGKILL")
        await _until(lambda: told.events)
        assert told.titles == ["run r1: rank 0 on node-0 is dead (killed by SIGKILL), and 3 others"] * 2
        assert {name for name, _ in told.sent} == {"a", "b"}
        ((kind, event_writer, body),) = told.events
        assert (kind, event_writer) == ("alerted", writers[0])
        assert body["targets"] == {"a": "sent", "b": "sent"}
        assert "http://h:1/runs/r1" in body["text"]
        assert not told.desk.is_busy


async def test_the_end_of_a_run_names_who_fell_first_even_if_that_was_told_before(
    store: Store, ranks: tuple[int, list[int]]
) -> None:
    run, writers = ranks
    async with _desk(store, "a") as told:
        for writer in writers:
            told.desk.met(run, "r1", writer, 1)
        told.desk.changed(run, writers[2], 2, "dead", "killed by SIGKILL")
        await _until(lambda: told.sent)
        for rank in (0, 1, 3):
            told.desk.changed(run, writers[rank], rank, "failed", "RuntimeError: NCCL")
        told.desk.ended(run)
        await _until(lambda: len(told.sent) == 2)
        assert told.titles[1] == "run r1 has failed: rank 2 on node-2 is dead (killed by SIGKILL), and 3 others"


async def test_who_failed_first_is_named_though_another_was_seen_first(
    store: Store, build: DatabaseBuilder, ranks: tuple[int, list[int]]
) -> None:
    run, writers = ranks
    build.state(writers[3], "dead", {"signal": "SIGKILL", "reason": "killed by SIGKILL"}, since_s=10.0)
    aborted = {"signal": "SIGABRT", "reason": "killed by SIGABRT"}
    build.state(writers[1], "dead", aborted, since_s=12.0)
    async with _desk(store, "a") as told:
        told.desk.met(run, "r1", writers[1], 1)
        told.desk.changed(run, writers[1], 1, "dead", "killed by SIGABRT")
        told.desk.changed(run, writers[3], 3, "dead", "killed by SIGKILL")
        await _until(lambda: told.sent)
        assert told.titles == ["run r1: rank 3 on node-3 is dead (killed by SIGKILL), and 1 other"]


async def test_who_ended_well_too_early_is_why_though_only_another_has_failed(
    store: Store, build: DatabaseBuilder, ranks: tuple[int, list[int]]
) -> None:
    run, writers = ranks
    build.state(writers[3], "finished", {"exit_code": 0}, since_s=10.0)
    lost = {"exception": {"type": "RuntimeError", "message": "Connection closed by peer [10.0.0.1]"}}
    build.state(writers[1], "failed", lost, since_s=12.0)
    async with _desk(store, "a") as told:
        told.desk.met(run, "r1", writers[1], 1)
        told.desk.changed(run, writers[1], 1, "failed", "RuntimeError: Connection closed by peer [10.0.0.1]")
        await _until(lambda: told.sent)
        (title,) = told.titles
        assert title.startswith("run r1: rank 3 on node-3 (")
        assert title.endswith(") left too early: it finished while others still needed it")


async def test_a_target_that_hangs_delays_nobody(store: Store, ranks: tuple[int, list[int]]) -> None:
    run, writers = ranks
    async with _desk(store, "hangs", "works", answer=lambda name: "hang" if name == "hangs" else "") as told:
        told.desk.met(run, "r1", writers[0], 1)

        def taken() -> int:
            return sum(name == "works" for name, _ in told.sent)

        for number in range(3):
            told.desk.asked(run, writers[0], 0, {"title": f"alert {number}"}, time.time_ns())
            more_than = number
            await _until(lambda: taken() > more_than)  # noqa: B023
        assert len([1 for name, _ in told.sent if name == "hangs"]) == 1


async def test_a_failure_is_counted_and_kept_with_its_reason(store: Store, ranks: tuple[int, list[int]]) -> None:
    run, writers = ranks
    async with _desk(store, "a", answer=lambda _: "no route") as told:
        told.desk.met(run, "r1", writers[0], 1)
        told.desk.changed(run, writers[0], 0, "failed", "ValueError: x")
        await _until(lambda: len(told.events) == 2)
        (_, _, alerted), (kind, writer, lost) = told.events
        assert alerted["targets"] == {"a": "no route; it is tried again"}
        assert (kind, writer) == ("alert-lost", writers[0])
        assert lost == {"target": "a", "tries": 2, "problem": "no route", "title": alerted["title"]}
        assert told.desk.dispatch.status() == {
            "targets": [{"name": "a", "problem": "no route"}],
            "sent": 0,
            "failed": 2,
            "dropped": 0,
        }


async def test_a_rank_that_is_back_after_a_restart_of_the_collector_is_told_once(
    store: Store, build: DatabaseBuilder, ranks: tuple[int, list[int]]
) -> None:
    run, writers = ranks
    async with _desk(store, "a") as before:
        before.desk.met(run, "r1", writers[1], 1)
        before.desk.changed(run, writers[1], 1, "stalled", "no step after 7 for 30 s")
        await _until(lambda: before.events)
    build.state(writers[1], "stalled", since_s=_now_s())
    async with _desk(store, "a") as told:
        told.desk.met(run, "r1", writers[1], 1)
        told.desk.changed(run, writers[1], 1, "running", "")
        await _until(lambda: told.sent)
        await _until(lambda: not told.desk.is_busy)
        assert told.titles == ["run r1: rank 1 on node-1 is running again"]


async def test_what_was_told_is_not_told_again_by_the_next_collector_and_what_was_not_is(
    store: Store, build: DatabaseBuilder, ranks: tuple[int, list[int]]
) -> None:
    run, writers = ranks
    async with _desk(store, "a") as before:
        before.desk.met(run, "r1", writers[1], 1)
        before.desk.changed(run, writers[1], 1, "unreachable", "no sign of life for 6 s")
        await _until(lambda: before.events)
    build.state(writers[1], "unreachable", since_s=_now_s())
    build.state(writers[2], "stalled", {"reason": "no step"}, since_s=_now_s())  # and then it was killed itself
    async with _desk(store, "a") as told:
        told.desk.met(run, "r1", writers[1], 1)
        told.desk.changed(run, writers[1], 1, "unreachable", "no sign of life for 6 s")
        await _until(lambda: told.sent)
        await _until(lambda: not told.desk.is_busy)
        assert told.titles == ["run r1: rank 2 on node-2 is stalled (no step)"]


async def test_the_limit_holds_over_a_restart(
    store: Store, build: DatabaseBuilder, ranks: tuple[int, list[int]]
) -> None:
    run, writers = ranks
    async with _desk(store, "a") as before:
        before.desk.met(run, "r1", writers[1], 1)
        before.desk.changed(run, writers[1], 1, "stalled", "no step")
        await _until(lambda: before.events)
    build.state(writers[1], "stalled", since_s=_now_s())
    async with _desk(store, "a") as told:
        told.desk.met(run, "r1", writers[2], 1)
        told.desk.changed(run, writers[2], 2, "stalled", "no step")
        told.desk.changed(run, writers[3], 3, "failed", "ValueError: x")  # another kind
        await _until(lambda: told.sent)
        assert told.titles == ["run r1: rank 3 on node-3 has failed (ValueError: x)"]
        assert told.desk.is_busy


async def test_what_a_program_said_just_before_the_collector_ended_is_told_by_the_next(
    store: Store, build: DatabaseBuilder, ranks: tuple[int, list[int]]
) -> None:
    run, writers = ranks
    said = {"title": "lr is odd", "text": "It rose.", "level": "WARN"}
    async with _desk(store, "a") as before:
        before.desk.asked(run, writers[0], 0, {**said, "title": "first"}, time.time_ns())
        await _until(lambda: before.events)
    build.event(run, writers[0], "alert", {**said, "title": "first"}, second=_now_s())
    build.event(run, writers[2], "alert", said, second=_now_s())
    async with _desk(store, "a") as told:
        await _until(lambda: told.sent)
        await _until(lambda: not told.desk.is_busy)
        assert told.titles == ["run r1: lr is odd"]


async def test_the_same_words_from_all_ranks_are_one_message(store: Store, ranks: tuple[int, list[int]]) -> None:
    run, writers = ranks
    async with _desk(store, "a") as told:
        told.desk.met(run, "r1", writers[0], 1)
        for rank, writer in enumerate(writers):
            told.desk.asked(run, writer, rank, {"title": "loss is odd", "text": "look"}, time.time_ns())
        await _until(lambda: told.events)
        ((_, message),) = told.sent
        assert (message.title, message.text.splitlines()[:2]) == (
            "run r1: loss is odd",
            ["look", "from 4 ranks: 0-3"],
        )


async def test_without_targets_alerts_are_kept_all_the_same(store: Store, ranks: tuple[int, list[int]]) -> None:
    run, writers = ranks
    async with _desk(store) as told:
        told.desk.met(run, "r1", writers[1], 1)
        told.desk.value(run, writers[1], 1, "train/loss", float("nan"), 7, time.time_ns())
        await _until(lambda: told.events)
        assert told.events[0][2]["title"] == "run r1: rank 1 on node-1 says that train/loss is NaN at step 7"


async def test_a_rank_that_is_back_is_told_after_its_alert(store: Store, ranks: tuple[int, list[int]]) -> None:
    run, writers = ranks
    async with _desk(store, "a") as told:
        told.desk.met(run, "r1", writers[1], 1)
        told.desk.changed(run, writers[1], 1, "unreachable", "no sign of life for 6 s")
        await _until(lambda: told.sent)
        told.desk.changed(run, writers[1], 1, "running", "")
        await _until(lambda: len(told.sent) == 2)
        assert told.titles[1] == "run r1: rank 1 on node-1 is running again"


async def test_a_run_without_data_is_told_and_that_it_goes_on(store: Store, ranks: tuple[int, list[int]]) -> None:
    run, writers = ranks
    async with _desk(store, "a", no_data_s=0.2) as told:
        told.desk.met(run, "r1", writers[0], 1)
        await _until(lambda: told.sent)
        steps = itertools.count()

        def goes_on() -> bool:
            told.desk.came(run, writers[0], next(steps))
            return len(told.sent) == 2

        await _until(goes_on)
        assert told.titles == ["run r1 has sent no data for 0.2 s", "run r1 sends data again"]


async def test_a_process_that_is_gone_and_then_proves_to_have_finished_is_no_alert(
    store: Store, ranks: tuple[int, list[int]]
) -> None:
    run, writers = ranks
    async with _desk(store, "a", rules=CHOICES) as told:
        told.desk.met(run, "r1", writers[0], 1)
        told.desk.changed(run, writers[0], 0, "dead", "exited with code 0", is_sure=False)
        told.desk.ended(run, is_sure=False)
        assert told.desk.is_busy
        told.desk.changed(run, writers[0], 0, "finished", "")
        told.desk.ended(run)
        await _until(lambda: told.sent)
        assert told.titles == ["run r1 has finished"]


async def test_what_comes_in_long_after_it_was_is_history(store: Store, build: DatabaseBuilder) -> None:
    run, writers = _a_run(build, at_ns=time.time_ns() - 5 * _HOUR_NS)
    async with _desk(store, "a") as told:
        told.desk.met(run, "r1", writers[0], 1)
        told.desk.changed(run, writers[0], 0, "failed", "ValueError: x")
        told.desk.asked(run, writers[0], 0, {"title": "yesterday's"}, time.time_ns() - 5 * _HOUR_NS)
        await _until(lambda: not told.desk.is_busy)
        told.desk.asked(run, writers[0], 0, {"title": "now"}, time.time_ns())
        await _until(lambda: told.sent)
        assert told.titles == ["run r1: now"]


async def test_rules_that_are_off_send_nothing_but_what_programs_say(
    store: Store, ranks: tuple[int, list[int]]
) -> None:
    run, writers = ranks
    async with _desk(store, "a", rules=()) as told:
        told.desk.met(run, "r1", writers[0], 1)
        told.desk.changed(run, writers[0], 0, "dead", "")
        told.desk.value(run, writers[0], 0, "loss", float("inf"), 1, time.time_ns())
        told.desk.ended(run)
        told.desk.asked(run, writers[0], 0, {"title": "mine", "level": "WARN"}, time.time_ns())
        await _until(lambda: told.events)
        assert [(message.title, message.level) for _, message in told.sent] == [("run r1: mine", "WARN")]


async def test_a_test_goes_to_all_at_once_and_says_how_each_answered(store: Store) -> None:
    both = threading.Barrier(2, timeout=_WITHIN_S)

    def answer(name: str) -> str:
        both.wait()
        return "" if name == "a" else "no"

    async with _desk(store, "a", "b", answer=answer) as told:
        assert await told.desk.test() == [
            {"name": "a", "sent": True, "problem": ""},
            {"name": "b", "sent": False, "problem": "no"},
        ]
