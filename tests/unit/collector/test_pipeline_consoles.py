"""The tee of a rank is heard and answered, and is never watched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from tests.support.pipelines import ipc_address, peer, running
from tests.support.writers import T0_NS, HandWriter

from allranks_bus import events
from allranks_bus.events import Kind
from allranks_collector.store import Store

pytestmark = pytest.mark.anyio

_LINE = events.pack(Kind.CONSOLE, T0_NS, 1, b"epoch 3\n")


async def test_who_looks_on_is_told_of_lines_and_nothing_else(store: Store) -> None:
    told: list[tuple[str, str]] = []

    def publish(topic: str, run: str, _data: Mapping[str, Any]) -> None:
        told.append((topic, run))

    tee = HandWriter(role="console")
    with ipc_address() as address:
        async with running(store, address, publish=publish) as pipeline:
            with peer(address, tee) as one:
                await one.meet()
                one.send(tee.batch([tee.open(), _LINE]))
                await one.hear_position(2)
                assert pipeline.watch.live_writers == 0
    assert told == [("logs", "run-1")]


async def test_a_collector_that_comes_back_does_not_wait_for_tees(store: Store) -> None:
    tee = HandWriter(role="console")
    with ipc_address() as address:
        async with running(store, address):
            with peer(address, tee) as one:
                await one.meet()
                one.send(tee.batch([tee.open(), _LINE]))
                await one.hear_position(2)
        async with running(store, address) as pipeline:
            assert pipeline.watch.live_writers == 0
            with peer(address, tee) as one:
                assert (await one.meet()).next_seq == 2
