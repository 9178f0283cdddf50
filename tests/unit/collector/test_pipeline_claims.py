"""Two processes at one rank, and ranks that do not agree: it is said once, and hurts nobody else."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest
from tests.support.pipelines import Peer, ipc_address, peer, running
from tests.support.writers import T0_NS, HandWriter, number, numbers

from allranks_bus import events
from allranks_bus.addresses import Address
from allranks_bus.events import Kind
from allranks_bus.wire import Refused
from allranks_collector import queries, watch
from allranks_collector.claims import Places
from allranks_collector.queries.why import why
from allranks_collector.store import Store

pytestmark = pytest.mark.anyio


@pytest.fixture
def address() -> Generator[Address]:
    with ipc_address() as address:
        yield address


def _events(store: Store, kind: str) -> list[dict[str, Any]]:
    with store.cursor() as cursor:
        rows = cursor.execute("SELECT body FROM events WHERE kind = ? ORDER BY event", [kind]).fetchall()
    return [json.loads(body) for (body,) in rows]


async def _until(fact: Callable[[], object], *beating: Peer) -> None:
    with anyio.fail_after(60):
        while not await anyio.to_thread.run_sync(fact):
            for one in beating:
                one.beat(step=1)
            await anyio.sleep(0.05)


def _three() -> list[HandWriter]:
    """Ranks 0 and 1 of a world of two, and a second rank 0."""
    places = ((1, 0, 11), (2, 1, 12), (3, 0, 13))
    return [HandWriter(name, rank=rank, world_size=2, pid=pid, host=f"h{name}") for name, rank, pid in places]


async def test_two_processes_at_one_rank_are_said_and_told_apart_and_the_other_rank_is_well(
    store: Store, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "Places", partial(Places, same_s=0.2))
    writers = _three()
    text = "rank 0 is claimed by 2 processes at once: pid 11 on h1, pid 13 on h3"
    async with running(store, address):
        with peer(address, writers[0]) as a, peer(address, writers[1]) as b, peer(address, writers[2]) as c:
            for value, (one, writer) in enumerate(zip((a, b, c), writers, strict=True)):
                await one.meet()
                one.send(writer.batch([writer.open(), number(1, float(value), "x")]))
                await one.hear_position(2)
            await _until(lambda: _events(store, "rank-claimed-twice"), a, b, c)
    async with running(store, address):
        with peer(address, writers[0]) as a, peer(address, writers[1]) as b, peer(address, writers[2]) as c:
            with anyio.move_on_after(1.5):  # a new collector does not say it again
                await _until(lambda: len(_events(store, "rank-claimed-twice")) > 1, a, b, c)
    (event,) = _events(store, "rank-claimed-twice")
    assert event["text"] == text
    with store.cursor() as cursor:
        run = queries.find_run(cursor, "run-1")
        ranks = queries.list_ranks(cursor, run)
        told = why(cursor, run)
        curves = queries.plain(queries.metrics(cursor, run, queries.CurveRequest(["x"])))["series"]
        points = cursor.execute("SELECT count(*) FROM points").fetchone()
    assert [(rank["rank"], rank["pid"], rank["state"]) for rank in ranks] == [(0, 11, "running"), (1, 12, "running")]
    assert [[rival["pid"] for rival in rank["rivals"]] for rank in ranks] == [[13], []]
    assert told["roll_call"]["claims"] == [text]
    assert told["lines"][-1].startswith(f"all 2 present. {text}. ")
    assert [(curve["rank"], curve["value"]) for curve in curves] == [(0, [0.0]), (1, [1.0])]
    assert points == (3,)


async def test_a_rival_that_has_closed_is_forgotten(
    store: Store, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "Places", partial(Places, same_s=0.2))
    first, _, second = _three()
    async with running(store, address) as pipeline:
        with peer(address, first) as a, peer(address, second) as b:
            for one in (a, b):
                await one.meet()
                one.send(one.writer.batch([one.writer.open()]))
                await one.hear_position(1)
            await _until(lambda: _events(store, "rank-claimed-twice"), a, b)
            (event,) = _events(store, "rank-claimed-twice")
            (rival,) = event["rivals"]
            assert pipeline.watch.is_rival(rival)
            b.send(second.batch([events.pack(Kind.CLOSE, T0_NS, {"exit_code": 1})], is_urgent=True))
            await _until(lambda: not pipeline.watch.is_rival(rival))


async def test_who_came_first_is_known_to_the_next_collector(
    store: Store, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _, second = _three()
    async with running(store, address):
        for writer in (first, second):
            with peer(address, writer) as one:
                await one.meet()
                one.send(writer.batch([writer.open()]))
                await one.hear_position(1)
    monkeypatch.setattr(watch, "Places", partial(Places, same_s=0.0))
    async with running(store, address):
        with peer(address, first) as a, peer(address, second) as b:
            await _until(lambda: _events(store, "rank-claimed-twice"), a, b)
    (event,) = _events(store, "rank-claimed-twice")
    assert [claim["pid"] for claim in event["claims"]] == [11, 13]


async def test_ranks_that_do_not_agree_on_their_world_are_said_and_nobody_is_missing_by_that(
    store: Store, address: Address
) -> None:
    writers = [HandWriter(rank + 1, rank=rank, world_size=size) for rank, size in enumerate((3, 2, 3))]
    writers.append(HandWriter(9, rank=0, world_size=4, launch="l-2", started=2**62))
    async with running(store, address):
        with peer(address, writers[0]) as one:
            await one.meet()
            for writer in writers:
                one.send(writer.batch([writer.open()]))
            await _until(lambda: _events(store, "world-changed"))
    (changed,) = _events(store, "world-changed")
    assert changed["text"] == "attempt 2 has a world of 4, attempt 1 had one of 2 or 3"
    (disagrees,) = _events(store, "world-disagrees")
    said = "ranks do not agree on the world's size: rank 1 says 2, others say 3"
    assert disagrees["text"] == said
    with store.cursor() as cursor:
        run = queries.find_run(cursor, "run-1")
        assert why(cursor, run)["roll_call"]["text"] == "1 of 4 present; missing 1-3"
        first = why(cursor, run, attempt=1)["roll_call"]
        assert (first["text"], first["claims"]) == ("all 3 present", [said])


async def test_a_rank_that_cannot_be_is_refused_and_its_run_says_so_once(store: Store, address: Address) -> None:
    good, bad = HandWriter(1), HandWriter(2, rank=9, world_size=8, pid=77, host="h2")
    async with running(store, address):
        with peer(address, good) as one, peer(address, bad) as other:
            await one.meet()
            one.send(good.batch([good.open(), *numbers(0, 4)]))
            await one.hear_position(5)
            await other.meet()
            batch = bad.batch([bad.open()])
            other.send(batch)
            answer = await other.hear()
            assert isinstance(answer, Refused)
            other.send(batch)
            assert isinstance(await other.hear(), Refused)
            await _until(lambda: _events(store, "refused"))
    (event,) = _events(store, "refused")
    assert event["text"].startswith("a process (pid 77 on 'h2') is refused: an identity's rank must be 0 to ")
    assert event["text"].endswith("not 9 of 8")
    with store.cursor() as cursor:
        run = queries.find_run(cursor, "run-1")
        assert [rank["rank"] for rank in queries.list_ranks(cursor, run)] == [0]
        assert queries.list_claims(cursor, run) == [event["text"]]
